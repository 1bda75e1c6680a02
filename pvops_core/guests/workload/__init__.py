"""Workloads of a real kernel: a program that makes rounds of one kind of work as the first process."""
