"""Places in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.scenarios.places import as_built, target_of_call

if TYPE_CHECKING:
    from pvops_core.scenarios.stage import StagedRun


def test_places_in_words(sound: StagedRun) -> None:
    site = sound.guest.sites[0]
    (line, *_rest) = as_built(sound, "title", site.address, 1).lines
    assert line.startswith(f"{site.address:x}  ff 15")
    assert target_of_call(0x1000, b"\xe8\x10\x00\x00\x00", 32) == 0x1015
    assert target_of_call(0x1000, b"\xe9\xf0\xff\xff\xff", 32) == 0xFF5
    assert target_of_call(0x1000, b"\xff\x15\x00\x00\x00\x00", 32) is None
    assert target_of_call(0x1000, b"\xe8", 32) is None
