"""Records of real boots: a user's own kernel under QEMU, stopped where it patches itself, and its text read there."""
