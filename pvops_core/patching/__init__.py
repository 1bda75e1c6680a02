"""Patching: what a call site is, what may replace it, and the one way guest text is written."""
