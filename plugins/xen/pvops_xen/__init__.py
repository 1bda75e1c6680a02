"""The xen backend: what a Linux guest does to run as a Xen PV domain, and the hypervisor that it runs on."""
