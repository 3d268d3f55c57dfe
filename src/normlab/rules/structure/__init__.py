"""Rules about how the layers stand to each other: nothing is run (NL1xx)."""
