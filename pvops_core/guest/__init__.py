"""What is asked of a guest, whichever it is: who goes on in which bytes of its text."""
