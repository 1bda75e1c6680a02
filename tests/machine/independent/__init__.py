"""The same small programs on processor models that others wrote, without an operating system under them."""
