"""The built-in guest: a small real kernel for each layout, its boot protocol and its report."""
