"""A guest's memory by its kernel's own C types."""
