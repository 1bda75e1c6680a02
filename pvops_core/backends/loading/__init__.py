"""Imports plugins: tried in a child process first, kept from harming the host, and checked before they are used."""
