"""The laws, one idea a file; a new file is found by itself."""
