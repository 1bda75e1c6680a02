"""What the ops remember from call to call: of the built-in guest in Python, of a Linux in its own memory."""
