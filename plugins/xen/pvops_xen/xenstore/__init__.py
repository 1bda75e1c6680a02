"""A xenstored: the tree in which domains and toolstack tell each other things (docs/misc/xenstore.txt of Xen)."""
