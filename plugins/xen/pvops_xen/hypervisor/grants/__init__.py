"""Grant tables: how a domain lets others at frames of its own (xen/common/grant_table.c)."""
