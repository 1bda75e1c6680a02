"""Proof of a backend's hooks against the functions of a real kernel that they stand for."""
