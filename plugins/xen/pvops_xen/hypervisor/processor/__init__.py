"""The processor as a PV guest has it: descriptors, entries and returns, traps, instructions carried out for it."""
