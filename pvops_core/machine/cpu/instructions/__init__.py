"""What privileged and sensitive instructions do, for Python code that acts for the guest."""
