"""Poke transactions: wholly old or wholly new, on every vCPU, whatever fails at whichever step."""

from __future__ import annotations

import gc
import itertools
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import ref

import numpy as np
import pytest

from pvops_core.errors import HeldError, MachineError, OccupiedError, PatchError
from pvops_core.guest.stacks.leaving import PATIENCE_NS
from pvops_core.machine import BareMetal, Machine, MachineKind, Vcpu
from pvops_core.patching.holders import Hold
from pvops_core.patching.poke import Poke, PokeBatch, Poker, PokeStep

TEXT = 0x1000
SITE = TEXT + 0x100
RESULTS = 0x8000
OLD, NEW = 0x11111111, 0x22222222
PAIRS = 6
ROUNDS = 600


class InjectedError(Exception):
    """What an injected fault raises."""


class Quiet(BareMetal):
    """Bare metal that ends the run when the last vCPU halts."""

    def halted(self, vcpu: Vcpu) -> None:
        vcpu.halt()
        if all(other.halted for other in self.machine.vcpus):
            self.machine.stop("poweroff")


def site(value: int) -> bytes:
    """``mov eax, value; nop``: a mix of two of them would put a third number into eax."""
    return b"\xb8" + struct.pack("<I", value) + b"\x90"


def loop(rounds: int) -> bytes:
    """Call the site function ``rounds`` times, storing each result at [edi]; then hlt."""
    begin = b"\xb9" + struct.pack("<I", rounds)  # mov ecx, rounds
    call = b"\xe8" + struct.pack("<i", SITE - (TEXT + len(begin) + 5))
    store = b"\x89\x07\x83\xc7\x04"  # mov [edi], eax; add edi, 4
    again = b"\x49\x75" + struct.pack("<b", -(len(call) + len(store) + 3))  # dec ecx; jnz
    return begin + call + store + again + b"\xf4"


def results_at(index: int) -> int:
    return RESULTS + index * 0x2000


@contextmanager
def machine(vcpus: int, seed: int = 0, rounds: int = ROUNDS) -> Iterator[Machine]:
    """Every vCPU calls one function made of PAIRS sites, of which the last decides the result."""
    with Machine(MachineKind.I386, memory=1 << 20, vcpus=vcpus, seed=seed, slice_blocks=7) as made:
        made.attach(Quiet(made))
        made.memory.write(TEXT, loop(rounds))
        made.memory.write(SITE, site(OLD) * PAIRS + b"\xc3")
        for vcpu in made.vcpus:
            vcpu.rip = TEXT
            vcpu.rsp = 0x7000 - 0x100 * vcpu.index
            vcpu.set("edi", results_at(vcpu.index))
        yield made


def poker(of: Machine) -> Poker:
    return Poker(of, lambda page: page)


def pokes(old: int, new: int) -> list[Poke]:
    return [Poke(SITE + 6 * number, site(old), site(new)) for number in range(PAIRS)]


def text(of: Machine) -> bytes:
    return of.memory.read(SITE, 6 * PAIRS)


def results(of: Machine, index: int, rounds: int = ROUNDS) -> list[int]:
    return list(struct.unpack(f"<{rounds}I", of.memory.read(results_at(index), 4 * rounds)))


@pytest.mark.parametrize("vcpus", [1, 2, 4, 8])
def test_new_text_is_what_every_vcpu_executes(vcpus: int) -> None:
    with machine(vcpus) as made:
        made.run(max_ns=2000)
        assert poker(made).transaction(pokes(OLD, NEW), by="test") == PAIRS
        assert text(made) == site(NEW) * PAIRS
        assert made.run().reason == "poweroff"
        for index in range(vcpus):
            found = results(made, index)
            assert set(found) <= {OLD, NEW}
            assert found == sorted(found), "a vCPU went back to the old text"
            assert found[-1] == NEW


@pytest.mark.parametrize("vcpus", [1, 2, 4, 8])
@pytest.mark.parametrize("step", list(PokeStep))
def test_a_fault_at_any_step_leaves_the_old_text(vcpus: int, step: PokeStep) -> None:
    with machine(vcpus, seed=vcpus) as made:
        poke = poker(made)

        def fail(at: PokeStep) -> None:
            if at is step:
                raise InjectedError

        poke.observer = fail
        made.run(max_ns=1500)
        with pytest.raises(InjectedError):
            poke.transaction(pokes(OLD, NEW), by="test")
        assert text(made) == site(OLD) * PAIRS
        assert made.run().reason == "poweroff"
        assert all(set(results(made, index)) == {OLD} for index in range(vcpus))


@pytest.mark.parametrize("method", ["quiesce", "invalidate"])
@pytest.mark.parametrize("vcpus", [1, 4])
def test_a_machine_that_fails_leaves_the_old_text(vcpus: int, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with machine(vcpus) as made:
        made.run(max_ns=1500)
        real, calls = getattr(made, method), itertools.count()

        def fail_once(ranges: object) -> None:
            if next(calls) == 0:
                raise MachineError("injected")
            real(ranges)

        monkeypatch.setattr(made, method, fail_once)
        with pytest.raises(MachineError, match="injected"):
            poker(made).transaction(pokes(OLD, NEW), by="test")
        assert text(made) == site(OLD) * PAIRS
        assert made.run().reason == "poweroff"
        assert all(set(results(made, index)) == {OLD} for index in range(vcpus))


@pytest.mark.parametrize("seed", range(6))
def test_no_vcpu_fetches_a_mix_whenever_the_text_changes(seed: int) -> None:
    with machine(4, seed=seed) as made:
        poke = poker(made)
        values = itertools.cycle([(OLD, NEW), (NEW, OLD)])
        while made.run(max_ns=300 + 37 * seed).reason == "timeout":
            poke.transaction(pokes(*next(values)), by="test")
        for index in range(4):
            assert set(results(made, index)) <= {OLD, NEW}


def test_a_vcpu_inside_a_site_is_brought_out_of_it_first() -> None:
    with machine(1) as made:
        vcpu = made.vcpus[0]
        vcpu.rip = SITE + 5  # behind mov, before nop
        poker(made).transaction([Poke(SITE, site(OLD), b"\xf4" * 6)], by="test")
        assert vcpu.rip == SITE + 6


def test_a_vcpu_that_returns_into_a_site_runs_on_until_it_is_out() -> None:
    """The callee of the loop returns into the middle of what changes; a word on the stack is all that says so."""
    with machine(2) as made:
        vcpu, other = made.vcpus
        other.rsp = 0x3000  # another stack than the first's
        made.run(max_ns=1000)
        back = TEXT + 10  # behind the call of the loop
        vcpu.rip, vcpu.rsp = SITE, vcpu.rsp - 4
        vcpu.set_u32(vcpu.rsp, back)
        before, ahead = made.clock.ns, other.rip
        loop_code = made.memory.read(TEXT + 5, 10)
        poker(made).transaction([Poke(TEXT + 5, loop_code, b"\x90" * 10)], by="test")
        assert not TEXT + 5 < vcpu.rip < TEXT + 15
        assert before < made.clock.ns <= before + PATIENCE_NS
        assert (other.rip == ahead) or not TEXT + 5 < other.rip < TEXT + 15
        assert not any(each.held for each in made.vcpus)


@pytest.mark.parametrize("vcpus", [1, 2])
def test_who_stays_inside_is_named_and_nothing_is_changed(vcpus: int) -> None:
    with machine(vcpus) as made:
        made.memory.write(SITE, b"\x90\x90\xeb\xfd")  # a loop on the second byte
        made.vcpus[0].halt()
        made.vcpus[vcpus - 1].wake()
        made.vcpus[vcpus - 1].rip = SITE + 1
        before = made.clock.ns
        with pytest.raises(OccupiedError, match="executes 0x1101, still after") as caught:
            poker(made).transaction([Poke(SITE, b"\x90\x90\xeb\xfd", bytes(4))], by="test")
        assert (caught.value.vcpu, caught.value.place, caught.value.task) == (vcpus - 1, "0x1101", "")
        assert made.memory.read(SITE, 4) == b"\x90\x90\xeb\xfd"
        assert made.clock.ns - before < PATIENCE_NS + 50_000
        assert not any(each.held for each in made.vcpus)


def test_who_is_held_is_not_let_go() -> None:
    with machine(1) as made:
        made.memory.write(SITE, b"\x90\x90\xeb\xfd")
        made.vcpus[0].rip = SITE + 1
        made.vcpus[0].hold()
        with pytest.raises(OccupiedError, match="nobody may run"):
            poker(made).transaction([Poke(SITE, b"\x90\x90\xeb\xfd", bytes(4))], by="test")
        assert made.vcpus[0].held


@pytest.mark.parametrize("at", range(7))
def test_only_what_lies_between_the_bytes_that_change_concerns_anybody(at: int) -> None:
    """Of ``90 90 XX XX XX 90`` only who would go on behind the first changed byte, and before the last's end."""
    with machine(1) as made:
        made.memory.write(SITE, b"\x90" * 8)
        made.vcpus[0].rip = SITE + at
        poker(made).transaction([Poke(SITE, b"\x90" * 6, bytes.fromhex("9090f4f4f490"))], by="test")
        assert made.vcpus[0].rip == SITE + (5 if at in {3, 4} else at)


@pytest.mark.parametrize("retires", [False, True])
def test_where_code_goes_for_good_its_first_byte_counts_too(retires: bool) -> None:  # noqa: FBT001 - a parameter
    with machine(1) as made:
        made.memory.write(SITE, b"\x90" * 8)
        made.vcpus[0].rip = SITE
        poker(made).transaction([Poke(SITE, b"\x90" * 2, b"\xcc" * 2, retires=retires)], by="test")
        assert made.vcpus[0].rip == SITE + (2 if retires else 0)


def test_unexpected_old_bytes_change_nothing() -> None:
    with machine(2) as made:
        wrong = [*pokes(OLD, NEW)[:-1], Poke(SITE + 6 * (PAIRS - 1), site(NEW), site(OLD))]
        with pytest.raises(PatchError, match="expected") as caught:
            poker(made).transaction(wrong, by="test")
        assert caught.value.address == SITE + 6 * (PAIRS - 1)
        assert text(made) == site(OLD) * PAIRS


@pytest.mark.parametrize("apart", [0, 1], ids=["two", "the last two of three"])
def test_overlapping_pokes_are_refused(apart: int) -> None:
    with machine(1) as made:
        writer = poker(made)
        code = writer.read(np.array([SITE], dtype=np.uint64), 4)[0].tobytes()
        pokes = [
            Poke(SITE + place, code[place : place + size], bytes(size)) for place, size in ((0, 1), (1, 2), (2, 1))
        ]
        with pytest.raises(PatchError, match="overlap"):
            writer.transaction(pokes[1 - apart :], by="test")
        assert writer.read(np.array([SITE], dtype=np.uint64), 4)[0].tobytes() == code


def test_a_poke_needs_bytes_and_as_many_new_as_old() -> None:
    with pytest.raises(PatchError, match="no bytes"):
        Poke(SITE, b"", b"")
    with pytest.raises(PatchError, match="2 bytes over 1"):
        Poke(SITE, b"\x90", b"\x90\x90")


def test_an_address_that_is_not_text_is_refused() -> None:
    def translate(page: int) -> int:
        raise MachineError(f"{page:#x} is not there")

    with machine(1) as made, pytest.raises(PatchError, match="not guest text"):
        Poker(made, translate).transaction(pokes(OLD, NEW), by="test")


def test_text_is_not_written_from_inside_a_handler() -> None:
    with machine(1) as made:
        made.gates.map(0x4000, 2)
        made.memory.write(0x4000, made.gates.text)
        made.gates.bind(0, lambda _vcpu: poker(made).transaction(pokes(OLD, NEW), by="test"))
        made.vcpus[0].rip = 0x4000
        with pytest.raises(PatchError, match="defer"):
            made.run()
        assert text(made) == site(OLD) * PAIRS


def test_a_poke_across_pages_follows_both_translations() -> None:
    with machine(1) as made:
        frames = {0x20000: 0x50000, 0x21000: 0x30000}
        made.memory.write(0x50FFD, b"\x01\x02\x03")
        made.memory.write(0x30000, b"\x04\x05")
        poke = Poker(made, frames.__getitem__)
        poke.transaction([Poke(0x20FFD, bytes([1, 2, 3, 4, 5]), bytes([6, 7, 8, 9, 10]))], by="test")
        assert made.memory.read(0x50FFD, 3) == bytes([6, 7, 8])
        assert made.memory.read(0x30000, 2) == bytes([9, 10])
        assert poke.read(np.array([0x20FFE], dtype=np.uint64), 3).tobytes() == bytes([7, 8, 9])


class Owner:
    """Holds the first two sites."""

    def holds(self) -> Iterator[Hold]:
        yield Hold(SITE, SITE + 12, "an owner", "an owner stands here; ask it first")


@pytest.mark.parametrize("place", [0, 5, 11])
def test_who_holds_text_writes_there_and_nobody_else(place: int) -> None:
    with machine(1) as made:
        poke, owner = poker(made), Owner()
        poke.hold(owner)
        code = text(made)
        wanted = [Poke(SITE + place, code[place : place + 3], bytes(3))]
        with pytest.raises(HeldError, match=r"ask it first \(test\)") as caught:
            poke.transaction(wanted, by="test")
        assert (caught.value.holder, caught.value.address) == ("an owner", SITE)
        assert text(made) == code
        poke.transaction([Poke(SITE + 18, code[18:20], bytes(2))], by="test")
        poke.transaction(wanted, by="test", holder=owner)
        assert text(made)[place : place + 3] == bytes(3)


def test_nothing_to_do_is_no_transaction() -> None:
    with machine(1) as made:
        empty = PokeBatch(np.zeros(0, np.uint64), np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8))
        before = made.log.sha256
        assert poker(made).transaction(arrays=[empty], by="test") == 0
        assert made.log.sha256 == before


def test_a_machine_has_one_poker() -> None:
    with machine(1) as made:
        with pytest.raises(PatchError, match="no poker yet"):
            Poker.of(made)
        first = poker(made)
        assert Poker.of(made) is first
        with pytest.raises(PatchError, match="one poker"):
            poker(made)


def test_nothing_keeps_a_machine_for_its_poker() -> None:
    with machine(1) as made:
        of, there = ref(poker(made)), ref(made)
    del made
    gc.collect()
    assert (of(), there()) == (None, None)
