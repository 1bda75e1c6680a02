"""One vCPU's exits: what is done when the engine leaves the guest, and whom it is given to."""
