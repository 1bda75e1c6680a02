"""Payloads, good and bad."""

from __future__ import annotations

import errno

import pytest

from pvops_core.livepatch.errors import LivepatchError, PayloadError, errno_of
from pvops_core.livepatch.payload.builder import ABSOLUTE, PayloadBuilder, Reference
from pvops_core.livepatch.payload.model import HookPhase
from tests.livepatch.conftest import NEW, VERSION_CODE, Patched, returning
from tests.machine.conftest import TABLES


def good(made: Patched) -> PayloadBuilder:
    """A payload with some of everything."""
    builder = made.builder(b"good")
    builder.text("new_version", returning(NEW))
    builder.replace("version", "new_version", old_size=len(VERSION_CODE), expected=VERSION_CODE[:4])
    builder.text("hook", b"\xc3")
    builder.hook(HookPhase.LOAD, "hook")
    builder.fixup("hook", 0, 0)
    builder.data("variable", bytes(16), [Reference(0, "version", ABSOLUTE[64]), Reference(8, "hook", ABSOLUTE[64])])
    builder.modinfo(LIVEPATCH_RULEZ="1")
    return builder


INVAL, NOSUP = errno.EINVAL, errno.EOPNOTSUPP


def check_refused(made: Patched, data: bytes, number: int | None = None) -> None:
    """The upload fails, with this errno, and the guest is as it was."""
    made.livepatch._prepare()
    free, memory = made.guest.area.free, made.rig.memory.read(0, TABLES)
    with pytest.raises((PayloadError, LivepatchError)) as caught:
        made.registry.upload("payload", data)
    assert number is None or errno_of(caught.value) == number, str(caught.value)
    assert made.guest.area.free == free
    assert made.rig.memory.read(0, TABLES) == memory
    assert made.registry.records == []
