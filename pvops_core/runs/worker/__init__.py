"""Inside the child process: a run is made, and all that can be seen of it is noted."""
