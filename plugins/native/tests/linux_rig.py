"""A small kernel on bare metal."""

from __future__ import annotations

MEMORY = 32 << 20
SPIN = bytes.fromhex("ebfe")
