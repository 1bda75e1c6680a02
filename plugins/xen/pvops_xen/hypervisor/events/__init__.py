"""Event channels: what a domain hears of, by either of two interfaces (xen/common/event_channel.c)."""
