"""Whose turn it is and what time: vCPUs up and down, run states, timers, giving up the CPU."""
