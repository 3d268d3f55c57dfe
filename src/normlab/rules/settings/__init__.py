"""Rules about the settings of a norm, each by itself (NL2xx)."""
