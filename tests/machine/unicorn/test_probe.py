"""Where the engine keeps its CPU state: found by what is seen there, and refused where it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pvops_core.errors import HostError
from pvops_core.machine.unicorn import engine as uc
from pvops_core.machine.unicorn import probe

Look = tuple[bytes, bytes, list[bytes]]


def _zeroed(at: int, length: int, *which: int) -> Callable[[Look], Look]:
    """What was seen, with nothing at a place in some of the contexts: kernel, user, events."""

    def change(seen: Look) -> Look:
        contexts = [seen[0], seen[1], *seen[2]]
        for number in which:
            contexts[number] = contexts[number][:at] + bytes(length) + contexts[number][at + length :]
        return contexts[0], contexts[1], contexts[2:]

    return change


def _refusals() -> Iterator[tuple[Callable[[Look], Look], str]]:
    layout = probe.context_layout()
    cs, ss = layout.segment("cs"), layout.segment("ss")
    look = "0 words of its CPU state look like the"
    yield _zeroed(layout.hidden_flags, 4, 0), f"{look} hidden flags, not one"
    yield _zeroed(cs, 4, 0), f"{look} CS selector, not one"
    yield _zeroed(ss, 4, 1), f"{look} SS selector, not one"
    yield _zeroed(cs + 16, 8, 1), "cached segments do not look as expected"
    yield _zeroed(layout.exception, 4, 3), f"{look} exception word, not one"
    yield _zeroed(layout.error_code, 4, *range(2, 6)), f"{look} error code, not one"
    yield _zeroed(layout.software, 4, 5), f"{look} software interrupt word, not one"
    yield _zeroed(layout.control, 8, 1), "0 places of its CPU state look like the control registers, not one"


def test_another_layout_of_the_cpu_state_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever part is elsewhere; the host and the version are named, and what would be known."""
    seen = probe._observe()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    for change, why in _refusals():
        monkeypatch.setattr(probe, "_observe", lambda change=change: change(seen))
        with pytest.raises(HostError) as refused:
            probe.context_layout.__wrapped__()
        assert str(refused.value) == (
            f"Unicorn {uc.UNICORN_VERSION} on this host (aarch64) is not one that pvops knows: {why}. "
            "It knows the builds for x86_64 Linux that its distribution on PyPI has; no guest can run here"
        )
