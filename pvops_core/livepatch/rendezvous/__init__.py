"""Every vCPU quiet at one time, and what is done then: text rewritten, hooks called."""
