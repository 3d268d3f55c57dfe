"""Rules about what only training shows: the optimizer, gradients, several processes (NL4xx)."""
