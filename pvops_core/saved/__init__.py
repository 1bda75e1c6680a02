"""Sessions on disk: what is in a file, what it must fit, how it is written and read back."""
