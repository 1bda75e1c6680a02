"""What a failed test shows, how to run it again, and the verdict on every op."""
