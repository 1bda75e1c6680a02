"""The processor as a PV guest has it: descriptors, entries and returns, traps, and what is carried out for the kernel."""
