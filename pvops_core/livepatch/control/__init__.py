"""Who asks for what is to be done to payloads: the registry with its rules, the tool, scripts, a socket."""
