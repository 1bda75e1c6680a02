"""What is done in machine code of our own: how it is written, made and kept, and each piece with what works on it."""
