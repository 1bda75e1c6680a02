"""The built-in guest: a small real kernel for each layout, its boot protocol and its report."""

from pvops_core.guests.bootinfo import BootInfo, PlatformKind
from pvops_core.guests.builtin import LAYOUTS, GuestImage, builtin, parse_report
from pvops_core.guests.report import Report, Status

__all__ = ["LAYOUTS", "BootInfo", "GuestImage", "PlatformKind", "Report", "Status", "builtin", "parse_report"]
