"""Rules about what a batch or a few show (NL3xx)."""
