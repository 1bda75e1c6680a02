"""The built-in guest: a small real kernel for each layout, its boot protocol and its report."""

from pvops_core.guests.bootinfo import BootInfo, PlatformKind
from pvops_core.guests.builtin import LAYOUTS, builtin, parse_report
from pvops_core.guests.report import Report, Status
from pvops_core.hookspecs.guest import GuestImage

__all__ = ["LAYOUTS", "BootInfo", "GuestImage", "PlatformKind", "Report", "Status", "builtin", "parse_report"]
