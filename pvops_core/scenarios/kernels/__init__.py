"""The scenarios on kernels of their age: the fix is taken away from one that has it, and given back."""
