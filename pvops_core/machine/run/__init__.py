"""Running a machine: the loop and its scheduler, clock, breakpoints, gates, snapshots, event log."""
