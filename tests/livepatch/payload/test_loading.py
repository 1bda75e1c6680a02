"""A payload on its way into the guest."""

from __future__ import annotations

import attrs
import pytest

from pvops_core.errors import UsageError
from pvops_core.kinds import MachineKind
from pvops_core.livepatch.errors import PayloadError
from pvops_core.livepatch.payload.loading import load
from tests.livepatch.conftest import VERSION_CODE, Make


def test_a_payload_that_does_not_say_which_is_not_loaded(patched: Make) -> None:
    live = patched(MachineKind.X86_64)
    made = live.builder(b"one")
    made.text("one_version", b"\xc3")
    made.replace("version", "one_version", old_size=len(VERSION_CODE))

    def find(name: str) -> int:
        raise UsageError(f"2 functions are called {name!r}")

    guest = attrs.evolve(live.guest, find=find)
    with pytest.raises(PayloadError, match="2 functions are called 'version'"):
        load(guest, "one", made.build(), live.registry, force=False)
