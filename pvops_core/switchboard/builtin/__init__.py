"""The switchboard of the built-in guest, which fills the table of ops and patches the sites itself."""
