"""A Python prompt on a session: names for what people do there, completion, scripts."""
