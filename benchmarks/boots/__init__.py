"""Real kernels booted here and by QEMU's translator, turn about: ``python -m benchmarks.boots --help``."""
