"""Studies: many runs of many machines, kept by content, told of as one table."""
