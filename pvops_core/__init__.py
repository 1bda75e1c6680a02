"""Run, test, patch, switch and compare x86 paravirtualisation backends."""
