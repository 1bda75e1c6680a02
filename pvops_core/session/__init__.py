"""A guest on a backend, assembled: machine, platform, one writer of text, one switchboard."""

from pvops_core.session.session import Session, SessionSettings, hosted, platform_for

__all__ = ["Session", "SessionSettings", "hosted", "platform_for"]
