"""What the norms and their words mean: topics, their pictures, and the page of the whole family."""
