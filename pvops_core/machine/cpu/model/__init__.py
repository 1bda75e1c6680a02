"""Which processor this is: what cpuid says, and the model-specific registers."""
