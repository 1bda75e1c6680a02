"""A kernel's symbols and frames as debuggers read them: an ELF file without text, made of kallsyms and ORC."""
