"""Comparing backends: the differences between observations, and reports of them."""
