"""One run: its cell, the child process that makes it, who watches that, what was observed and what may be spent."""
