"""What a command line orders to be done in a session while it runs."""
