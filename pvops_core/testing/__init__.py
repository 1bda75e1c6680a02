"""What plugin authors test with: checks that run a backend's own code on a real machine, and images made in memory."""
