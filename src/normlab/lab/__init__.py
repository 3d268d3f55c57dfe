"""Claims put to the test: the statistics of paired trials, the rules of verdicts, and who does the work."""
