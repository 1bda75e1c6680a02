"""Attackers, each from one seed, and the ledger of what they have done: ``python -m soak --help``."""
