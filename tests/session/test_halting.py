"""Kernels whose regular end is that they halt."""

from __future__ import annotations

import pytest

from pvops_core.backends import chain, load_backends
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.session import Session
from pvops_core.testing.images import ElfBuilder

BASE = 0x100000
HALT = bytes.fromhex("fa f4 eb fd")  # cli; hlt; for ever
RETURN = b"\xc3"


@pytest.mark.parametrize(
    ("name", "code", "reason", "detail"),
    [
        ("machine_halt", RETURN, "halted", "machine_halt has returned"),
        ("machine_halt", HALT, "halted", "the kernel has stopped every vCPU"),
        ("machine_power_off", HALT, "halted", "the kernel has stopped every vCPU"),
        ("panic", HALT, "dead", "every vCPU is halted and nothing will wake one"),
    ],
)
def test_an_end_is_one_only_where_the_kernel_was_asked_for_it(name: str, code: bytes, reason: str, detail: str) -> None:
    builder = ElfBuilder(32, base=BASE)
    start = bytes.fromhex("bc 00 00 12 00 e8 06 00 00 00 eb fe")  # esp; call; for ever
    builder.text(".text", start.ljust(16, b"\xcc") + code)
    builder.symbol("startup_32", BASE)
    builder.symbol(name, BASE + 16)
    backends = load_backends().backends
    kernel = Kernel(load_image(builder.build(), "small"))
    with Session(kernel, chain(backends["native"], backends), memory=4 << 20) as session:
        stop = session.run(max_ns=1_000_000_000)
    assert (stop.reason, stop.detail) == (reason, detail)
