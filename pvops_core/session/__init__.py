"""A machine with a guest and a backend, and what is done to it from outside."""
