"""Rules about layer, RMS and group normalization, and half precision (NL5xx)."""
