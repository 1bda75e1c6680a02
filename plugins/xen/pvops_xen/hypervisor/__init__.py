"""A model of the Xen hypervisor for one paravirtualised domain: it checks what Xen checks and refuses what Xen refuses."""
