"""``.altinstructions``: what the kernel replaces by what its CPU has, at call sites and everywhere else."""
