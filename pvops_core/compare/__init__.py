"""Comparing backends: cells, the child processes that run them, observations, differences and reports."""
