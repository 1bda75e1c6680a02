"""What is recorded of a switch of several ops at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.session import Session


class Ops:
    """Two ops of an author's own."""

    def __init__(self, _env: object) -> None:
        pass

    @hookimpl
    def load_gdt(self) -> None:
        """Whatever it does, its sites are calls of it."""

    @hookimpl
    def write_msr(self) -> int:
        """As that."""
        return 0


def test_each_op_s_sites_are_its_own(make: Callable[..., Session]) -> None:
    alone: dict[str, int] = {}
    both = ("load_gdt", "write_msr")
    for ops in (("load_gdt",), ("write_msr",), both):
        board = make("6.1-64", Ops).switchboard
        assert board is not None
        board.apply_paravirt(by="boot")
        board.use(*ops, backend="native", by="test")
        sites = {switch.op: switch.sites for switch in board.history if switch.by == "test"}
        if ops == both:
            assert sites == alone
        else:
            alone |= sites
    assert 0 < alone["load_gdt"] != alone["write_msr"] > 0
