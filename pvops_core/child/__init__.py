"""Child processes: what may hang, grow, or end its process does so in one of its own, and is told of."""
