"""The lguest host: what answers when a guest kernel in ring 1 traps."""
