"""Mutation runs: small faults in the code that patches, switches and is an op; do the tests see them?

``make mutate`` runs a sample of each area; docs/mutation.md has the figures and how to read them. cosmic-ray makes the
mutants, on a copy of the tree.
"""
