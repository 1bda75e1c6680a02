"""One processor as its manual describes it: registers, segments, paging, faults, traps, and what instructions do."""
