"""What is asked of a guest, whichever it is: its image, its text in memory, its address space, its tasks."""

from pvops_core.guest.protocol import Guest
from pvops_core.guest.symbols import find_symbol
from pvops_core.guest.text import GuestText

__all__ = ["Guest", "GuestText", "find_symbol"]
