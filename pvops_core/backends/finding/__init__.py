"""Which plugins there are, and what their metadata and sources say: nothing of them is imported."""
