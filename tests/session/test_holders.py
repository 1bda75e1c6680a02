"""Hooks and live patches on one kernel: neither writes over what the other holds, and both leave what they found."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from pvops_core.backends import chain, load_backends
from pvops_core.errors import HeldError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.livepatch.errors import LivepatchError
from pvops_core.livepatch.kernel import live_patches
from pvops_core.livepatch.payload.builder import PayloadBuilder
from pvops_core.livepatch.payload.compiling import size_in
from pvops_core.livepatch.payload.model import Command
from pvops_core.livepatch.payload.pages import FRAMES
from pvops_core.session import Session

CLOUD = "vmlinuz-6.1.0-56-cloud-amd64"
JUMP = 5

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@attrs.frozen
class Place:
    """A function in whose first bytes, where a live patch's jump goes, lies a site of an op."""

    function: str
    op: str


class Both:
    """A kernel that has patched itself and takes live patches."""

    def __init__(self, kernel: Path) -> None:
        backends = load_backends().backends
        self.image = load_image(kernel)
        self.session = Session(
            Kernel(self.image, b"", "console=ttyS0"), chain(backends["native"], backends), tool_frames=FRAMES
        )
        self.patches = live_patches(self.session)
        self.session.run_to("patched", max_seconds=200)
        for _ in range(400):
            try:
                self.upload("probe", "load_idt")
            except LivepatchError:  # its page tables are not finished yet
                self.session.run(max_ns=5_000_000)
            else:
                break
        self.patches.registry.action("probe", Command.UNLOAD)

    def upload(self, name: str, function: str) -> None:
        guest = self.patches.guest
        made = PayloadBuilder(
            self.session.machine.kind, build_id=name.encode(), depends=guest.build_id, host=guest.build_id
        )
        made.text(f"new_{function}", b"\xc3")
        made.replace(function, f"new_{function}", old_size=size_in(self.image, function))
        self.patches.registry.upload(name, made.build())

    def act(self, name: str, command: Command) -> int:
        registry = self.patches.registry
        registry.action(name, command)
        while registry.work is not None:
            self.session.run(max_ns=50_000)
        return registry.get(name).rc

    def places(self) -> list[Place]:
        found, table = [], self.session.table
        assert table is not None
        for site in table.sites:
            named = self.image.symbol_at(site.address)
            alone = named and named[0] not in self.image.symbol_table.shared
            if named and alone and named[1] < JUMP and self.image.symbols[named[0]] == site.address - named[1]:
                found.append(Place(named[0], table.layout.by_type(site.type).op.name))
        return [place for place in found if size_in(self.image, place.function) >= JUMP]


@pytest.fixture(scope="module")
def both(kernel_path: Callable[[str], Path]) -> Iterator[Both]:
    made = Both(kernel_path(CLOUD))
    with made.session:
        yield made


def test_a_hook_over_an_applied_live_patch_is_refused_and_reverts_are_whole(both: Both) -> None:
    places = both.places()
    assert Place("load_idt", "load_idt") in places, "the next test wants that one"
    for place in places[:: len(places) // 6 or 1]:
        before, standing = both.session.text_sha256(), both.session.hooks.standing
        both.upload("mine", place.function)
        if both.act("mine", Command.APPLY):
            both.patches.registry.action("mine", Command.UNLOAD)
            continue  # somebody is in there all the time
        applied = both.session.text_sha256()
        with pytest.raises(HeldError, match=f"live patch mine has replaced {place.function} here") as caught:
            both.session.hooks.install(place.op, lambda _cpu: None, "a hook")
        assert caught.value.holder == "live patch mine"
        assert (both.session.text_sha256(), both.session.hooks.standing) == (applied, standing)
        assert both.act("mine", Command.REVERT) == 0
        assert both.session.text_sha256() == before
        both.patches.registry.action("mine", Command.UNLOAD)


def test_a_live_patch_over_a_hook_s_site_is_busy(both: Both) -> None:
    before = both.session.text_sha256()
    hook = both.session.hooks.install("load_idt", lambda _cpu: None, "a hook")
    assert hook.sites
    hooked = both.session.text_sha256()
    both.upload("mine", "load_idt")
    assert both.act("mine", Command.APPLY) == -errno.EBUSY
    assert "hook a hook of load_idt stands here; remove it first" in both.patches.messages[-2]
    assert both.session.text_sha256() == hooked
    both.session.hooks.remove(hook)
    assert both.session.text_sha256() == before
    assert both.act("mine", Command.APPLY) == 0
    assert both.act("mine", Command.REVERT) == 0
    assert both.session.text_sha256() == before
    both.patches.registry.action("mine", Command.UNLOAD)
