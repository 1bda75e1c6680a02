"""The launcher's half of lguest: what its user-space program does for a real kernel, devices included."""
