"""Native code for what small networks spend their time on, its plain references, and the choice between them."""
