"""A guest on a backend, assembled: machine, platform, one writer of text, one switchboard.

What needs the engine is imported when it is first used: a command whose worker runs the guest reads findings alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.lazily import lazily

if TYPE_CHECKING:
    from pvops_core.session.hosting import hosted, platform_for
    from pvops_core.session.session import Session, SessionSettings

__all__ = ["Session", "SessionSettings", "hosted", "platform_for"]

_HOMES = {"Session": "session", "SessionSettings": "session", "hosted": "hosting", "platform_for": "hosting"}

__getattr__ = lazily(__name__, _HOMES)
