"""A model of the Xen hypervisor for one paravirtualised domain: it checks and refuses what Xen does."""
