"""Initial ramdisks with a shell, made of a busybox of the host."""
