"""Dumps of a kernel's memory, as kdump leaves them for debuggers: ELF core files with the kernel's own notes."""
