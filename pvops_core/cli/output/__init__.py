"""What verbs show: streams, summaries, reports."""
