"""Processes of a study on a cluster, killed at random while it runs."""
