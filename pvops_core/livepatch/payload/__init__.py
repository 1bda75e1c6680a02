"""What a payload is: its file, its sections and pages in the guest, what it replaces, and how one is made."""
