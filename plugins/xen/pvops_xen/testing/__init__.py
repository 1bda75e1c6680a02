"""Help for testing the hypervisor model itself: small domains, random hypercalls."""
