"""Who returns into which bytes, by whose stacks; and how everybody is brought out of text that is to change."""
