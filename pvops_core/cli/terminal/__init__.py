"""A person at a terminal: every key is the guest's, but for those behind Ctrl-A."""
