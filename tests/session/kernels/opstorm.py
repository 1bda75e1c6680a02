"""Random switches of random ops of a busy Linux between its own functions and a backend's Python hooks.

``python -m tests.session.kernels.opstorm KERNEL [COUNT [SEED]]`` makes many; ``test_opstorm.py`` makes some. After each
switch the kernel's text, with what the hooks that stand have changed taken out, is that of the start; so it is at the
end.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np

from pvops_core.errors import OccupiedError, SwitchError
from pvops_core.switchboard import KERNEL
from tests.session.kernels.live import Live

if TYPE_CHECKING:
    import numpy.typing as npt

    from pvops_core.session import Session

LIMIT_NS = 1_000_000
PAUSE_NS = 100_000
VCPUS = 2


@attrs.define
class Tally:
    """What became of the switches.

    Attributes:
        made: how many were made, by what the op went to.
        late: ops whose switch took longer than a millisecond of virtual time.
        refused: why others were not made.
        wrong: ops after whose switch the text was not as it should be.
        calls: how often the hooks were called, by op.
        left: of those calls, how many were left to the kernel's own function.
    """

    made: Counter[str] = attrs.field(factory=Counter)
    late: list[str] = attrs.field(factory=list)
    refused: list[str] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)
    calls: Counter[str] = attrs.field(factory=Counter)
    left: int = 0

    @property
    def asked(self) -> int:
        """All switches that were asked for."""
        return self.made.total() + len(self.refused)

    @property
    def in_time(self) -> float:
        """The share of those that took effect within a millisecond."""
        return 1 - (len(self.late) + len(self.refused)) / max(1, self.asked)

    def told(self) -> str:
        """A summary of some lines."""
        lines = [
            f"{self.asked} switches: {dict(self.made)}, {self.in_time:.4%} within 1 ms; {len(self.wrong)} wrong texts",
            f"{self.calls.total()} calls of {len(self.calls)} hooks, {self.left} left to the kernel's own functions",
            *self.wrong[:10],
            *self.refused[:10],
            *self.late[:10],
        ]
        return "\n".join(lines)


class OpStorm:
    """A kernel whose user space is at work.

    Args:
        live: the kernel.
        backend: whose hooks its ops go to.
        seed: decides everything.
    """

    def __init__(self, live: Live, backend: str, seed: int) -> None:
        self.live, self.backend, self.chance = live, backend, random.Random(seed)
        self.session: Session = live.session
        self.tally = Tally()
        table = self.session.table
        assert table is not None
        self.ops = [slot.path for slot in table.layout.slots if not slot.op.is_data and self._has(slot.op.name)]
        self._turned: npt.NDArray[np.int64] | None = None
        self.start = self.text()

    def _has(self, op: str) -> bool:
        try:
            self.session.ops.offered(op, self.backend)
        except SwitchError:
            return False
        return True

    def run(self, count: int) -> None:
        """Make so many switches, then let all ops go back."""
        while self.tally.asked < count:
            assert self.session.run(max_ns=self.chance.randrange(1, PAUSE_NS)).reason == "timeout"
            self.switch(self.chance.choice(self.ops))
        while self.session.hooks.standing:  # whoever was refused comes out some time
            assert self.session.run(max_ns=PAUSE_NS).reason == "timeout"
            with suppress(OccupiedError):
                self.take_out(self.session.hooks.standing[0].op)

    def switch(self, path: str) -> None:
        """An op, with those that come with it, goes to the one that it is not at."""
        table, hooks = self.session.table, self.session.hooks
        assert table is not None
        op = table.slot(path).op.name
        standing = any(hook.op == op for hook in hooks.standing)
        if standing:
            self._asked(KERNEL, op, lambda: self.take_out(op))
        else:
            self._asked(self.backend, op, lambda: hooks.use(path, backend=self.backend, by="storm"))
        self._look(op)

    def take_out(self, op: str) -> None:
        """Its hook, counted."""
        hook = next(hook for hook in self.session.hooks.standing if hook.op == op)
        calls, left = hook.calls, hook.passed.total()
        self.session.ops.switch(op, KERNEL, by="storm")
        self.tally.calls[op] += calls
        self.tally.left += left

    def _asked(self, to: str, op: str, action: Callable[[], object]) -> None:
        before = self.session.machine.clock.ns
        try:
            action()
        except OccupiedError as error:
            self.tally.refused.append(f"{op}: {error}")
            return
        self.tally.made[to] += 1
        if self.session.machine.clock.ns - before > LIMIT_NS:
            self.tally.late.append(op)

    def _look(self, op: str) -> None:
        if not np.array_equal(self.text(), self.start):
            self.tally.wrong.append(f"after switch {self.tally.asked}, of {op}")

    def text(self) -> npt.NDArray[np.uint8]:
        """``.text`` without what hooks have changed there, and without static branches, which a kernel itself turns."""
        section = self.live.image.section(".text")
        assert section is not None
        text = np.frombuffer(self.session.text.read(section.address, section.size), np.uint8).copy()
        for at, code in self.session.hooks.text_without().items():
            if 0 <= at - section.address < len(text):
                text[at - section.address : at - section.address + len(code)] = np.frombuffer(code, np.uint8)
        text[self._branches(section.address, len(text))] = 0
        return text

    def _branches(self, address: int, size: int) -> npt.NDArray[np.int64]:
        """Offsets in a text of the bytes of its static branches, of which each entry of a table names one."""
        if self._turned is None:
            image = self.live.image
            start, end = (image.symbols[f"__{edge}___jump_table"] for edge in ("start", "stop"))
            entries = np.frombuffer(image.read(start, end - start), dtype="<i4").reshape(-1, 4)
            first = start - address + 16 * np.arange(len(entries), dtype=np.int64) + entries[:, 0]
            first = first[(first >= 0) & (first + 5 <= size)]
            self._turned = (first[:, None] + np.arange(5)).ravel()
        return self._turned


def storm(kernel: Path, backend: str, count: int, seed: int) -> Tally:
    """Boot, make so many switches under load, and hold the kernel to be sound at the end."""
    console = {"xen": "console=hvc0"}.get(backend, "console=ttyS0")
    live = Live(kernel, "initramfs.cpio.gz", backend, console, VCPUS)
    with live.session:
        made = OpStorm(live, backend, seed)
        made.run(count)
        assert live.session.run(max_ns=50_000_000).reason == "timeout"
        assert np.array_equal(made.text(), made.start)
        live.sound()
        return made.tally


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[2:]] + [10_000, 1][len(sys.argv[2:]) :]
    sys.stdout.write(storm(Path(sys.argv[1]), "xen", *given).told() + "\n")
