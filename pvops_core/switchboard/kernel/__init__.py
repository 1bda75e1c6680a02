"""Hooks in front of the ops of a kernel that fills its own table and patches its own sites."""
