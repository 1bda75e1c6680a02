"""Ops of a booted kernel go to and fro between a hook and the kernel's own function, under load, two vCPUs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pvops_core.errors import OccupiedError
from tests.session.kernels.live import Live

if TYPE_CHECKING:
    from pvops_core.switchboard.kernel.ophook import OpHook

CLOUD = "vmlinuz-6.1.0-56-cloud-amd64"
SWITCHES = 500
LIMIT_NS = 1_000_000
PAUSE_NS = 100_000

IDLING = b"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
read -r now < /proc/version
echo "seen $now"
while :; do /bin/busybox sleep 1; done
"""

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


class Busy:
    """A kernel whose user space is at work, and what became of the switches of its ops."""

    def __init__(self, live: Live, seed: int) -> None:
        self.live, self.session, self.chance = live, live.session, random.Random(seed)
        table = self.session.table
        assert table is not None
        self.ops = sorted({table.layout.by_type(site.type).op.name for site in table.sites})
        self.standing: dict[str, OpHook] = {}
        self.late: list[str] = []
        self.refused: list[OccupiedError] = []
        self.calls: Counter[str] = Counter()
        self.made = 0

    def toggle(self, op: str) -> None:
        """Put a hook into an op, or take it out."""
        before = self.session.machine.clock.ns
        try:
            if op in self.standing:
                hook = self.standing[op]
                self.session.hooks.remove(hook)
                self.calls[op] += hook.calls
                del self.standing[op]
            else:
                self.standing[op] = self.session.hooks.install(op, lambda _cpu: None, f"hook of {op}")
        except OccupiedError as error:
            self.refused.append(error)
            return
        self.made += 1
        if self.session.machine.clock.ns - before > LIMIT_NS:
            self.late.append(op)

    def text(self) -> bytes:
        """All of ``.text`` but the static branches, which the kernel itself turns while it runs."""
        image = self.live.image
        section = image.section(".text")
        assert section is not None
        text = bytearray(self.session.text.read(section.address, section.size))
        start, end = (image.symbols[f"__{edge}___jump_table"] for edge in ("start", "stop"))
        entries = np.frombuffer(image.read(start, end - start), dtype="<i4").reshape(-1, 4)
        for number, distance in enumerate(entries[:, 0].tolist()):
            at = start + 16 * number + distance - section.address
            if 0 <= at < len(text):
                text[at : at + 5] = bytes(5)
        return bytes(text)

    def go_on(self) -> None:
        assert self.session.run(max_ns=self.chance.randrange(1, PAUSE_NS)).reason == "timeout"


def test_switches_under_load_leave_the_kernel_sound(kernel_path: Callable[[str], Path]) -> None:
    live = Live(kernel_path(CLOUD), "initramfs.cpio.gz", "native", "console=ttyS0", 2)
    with live.session:
        busy = Busy(live, 1)
        text = busy.text()
        while busy.made + len(busy.refused) < SWITCHES:
            busy.go_on()
            busy.toggle(busy.chance.choice(busy.ops))
        asked = busy.made + len(busy.refused)
        assert (len(busy.late) + len(busy.refused)) / asked <= 0.01, (busy.late, list(map(str, busy.refused)))
        assert all(error.place and (error.vcpu is not None or error.task) for error in busy.refused)
        while busy.standing:  # whoever was refused comes out some time
            busy.toggle(min(busy.standing))
            busy.go_on()
        assert busy.calls.total() > SWITCHES
        assert busy.text() == text
        assert live.session.run(max_ns=50_000_000).reason == "timeout"
        assert busy.text() == text
        live.sound()


def test_a_kernel_that_idles_is_woken_for_it(kernel_path: Callable[[str], Path]) -> None:
    """A processor that idles has its return address inside the site of ``safe_halt``, for ever if nothing happens."""
    live = Live(kernel_path(CLOUD), "initramfs.cpio.gz", "native", "console=ttyS0", 2, IDLING)
    with live.session:
        machine, busy = live.machine, Busy(live, 2)
        text, woken = busy.text(), 0
        for _ in range(20):
            busy.go_on()
            woken += any(vcpu.halted for vcpu in machine.vcpus)
            busy.toggle("safe_halt")
        assert not busy.refused
        assert not busy.late
        assert woken > 10
        assert "safe_halt" not in busy.standing
        assert busy.calls["safe_halt"]
        assert busy.text() == text
        live.sound()
