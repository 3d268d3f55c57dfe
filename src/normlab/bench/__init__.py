"""The measurements behind every speed that is claimed: `python -m normlab.bench.NAME`."""
