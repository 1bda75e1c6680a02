"""Options that verbs share, and what is read off them."""
