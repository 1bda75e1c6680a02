"""Somebody looks at a run while it goes on: at a prompt of Python's, or with gdb."""
