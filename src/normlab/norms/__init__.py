"""Every normalization, one paper a file: the pure function and the thin layer that holds its state."""
