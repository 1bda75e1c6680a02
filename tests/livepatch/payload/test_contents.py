"""What a payload says: every rule refuses what breaks it."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

import pytest

from pvops_core.livepatch.errors import LivepatchError, PayloadError
from pvops_core.livepatch.payload.builder import DATA, RODATA, TEXT, PayloadBuilder, Reference, note
from pvops_core.livepatch.payload.contents import BUILD_ID, DEPENDS, EX_TABLE, FUNCS, HOOKS, HOST_DEPENDS
from pvops_core.livepatch.payload.model import HookPhase
from tests.livepatch.conftest import NEW, VERSION_CODE, Patched, returning
from tests.livepatch.payloads import INVAL, NOSUP, check_refused, good

Spoil = Callable[[PayloadBuilder], object]


def refer(symbol: str, kind: int, offset: int = 0, addend: int = 0) -> Spoil:
    return lambda b: b.sections[".data"].references.append(Reference(offset, symbol, kind, addend))


def put(section: str, offset: int, data: bytes) -> Spoil:
    def spoil(builder: PayloadBuilder) -> None:
        builder.sections[section].data[offset : offset + len(data)] = data

    return spoil


def drop(section: str) -> Spoil:
    return lambda b: b.sections.pop(section) and None


def flags(section: str, value: int) -> Spoil:
    return lambda b: setattr(b.sections[section], "flags", value)


def size(section: str, value: int) -> Spoil:
    def spoil(builder: PayloadBuilder) -> None:
        builder.sections[section].kind = 8  # NOBITS: no bytes of the file are claimed
        builder.sections[section].size = value

    return spoil


def more(section: str, data: bytes) -> Spoil:
    return lambda b: b.sections[section].data.extend(data)


def fresh(section: str, data: bytes) -> Spoil:
    return lambda b: b.section(section, RODATA).data.extend(data)


def twice(section: str) -> Spoil:
    def spoil(builder: PayloadBuilder) -> None:
        again = builder.section(section + "~", builder.sections[section].flags)
        again.data += builder.sections[section].data
        again.name = section

    return spoil


def apply_twice(builder: PayloadBuilder) -> None:
    for _ in range(2):
        builder.hook(HookPhase.APPLY, "hook")


def second(**how: object) -> Spoil:
    def spoil(builder: PayloadBuilder) -> None:
        arguments = {"old": "minor", "new": "hook", "old_size": 6, **how}
        builder.replace(**arguments)  # type: ignore[arg-type]

    return spoil


def alternative(entry: bytes, *, replacement: bool = True) -> Spoil:
    def spoil(builder: PayloadBuilder) -> None:
        builder.section(".altinstructions", RODATA).data += entry
        if replacement:
            builder.section(".altinstr_replacement", TEXT).data += b"\x90"

    return spoil


CASES: dict[str, tuple[Spoil, int]] = {
    "no depends": (drop(DEPENDS), INVAL),
    "no host depends": (drop(HOST_DEPENDS), INVAL),
    "no build-id": (drop(BUILD_ID), INVAL),
    "empty build-id section": (lambda b: b.sections[BUILD_ID].data.clear(), INVAL),
    "build-id too short for a note": (lambda b: b.sections[BUILD_ID].data.__delitem__(slice(12, None)), INVAL),
    "build-id of another owner": (put(BUILD_ID, 12, b"XEN\0"), errno.ENODATA),
    "build-id of another type": (put(BUILD_ID, 8, b"\4"), errno.ENODATA),
    "build-id longer than its section": (put(BUILD_ID, 4, b"\xff\xff\xff\xff"), INVAL),
    "build-id's owner longer than its section": (put(BUILD_ID, 0, b"\xff\xff\xff\xff"), INVAL),
    "build-id of no bytes": (put(DEPENDS, 4, bytes(4)), INVAL),
    "for another guest": (lambda b: b.sections[HOST_DEPENDS].data.__setitem__(slice(None), note(b"other")), INVAL),
    "build-id section twice": (twice(BUILD_ID), INVAL),
    "functions twice": (twice(FUNCS), INVAL),
    "build-id not loaded": (flags(BUILD_ID, 0), INVAL),
    "functions not loaded": (flags(FUNCS, 0), INVAL),
    "empty hooks": (lambda b: b.section(HOOKS + "unload", RODATA) and None, INVAL),
    "half a function": (more(FUNCS, bytes(50)), INVAL),
    "version 1": (second(version=1), NOSUP),
    "version 3": (second(version=3), NOSUP),
    "old_size 0": (second(old_size=0), INVAL),
    "old_size too small for a jump": (second(old_size=4), INVAL),
    "more nops than can be saved": (second(new=None, old_size=64, new_size=32), NOSUP),
    "more nops than the function": (second(new=None, new_size=7), INVAL),
    "no nops": (second(new=None, new_size=0), INVAL),
    "unknown old function": (second(old="nobody"), errno.ENOENT),
    "old function outside of memory": (second(old_address=1 << 40), INVAL),
    "old function too far": (second(old_address=0x3FF000 | 1 << 63), INVAL),
    "reserved bits of an expectation": (put(FUNCS, 72, b"\xc9"), INVAL),
    "expects more than the function": (second(expected=bytes(7)), errno.ERANGE),
    "the same function twice": (second(old="version", old_size=9), INVAL),
    "overlapping functions": (second(old_address=0x12002), INVAL),
    "new function outside of the text": (second(new="variable"), INVAL),
    "hook outside of the text": (lambda b: b.hook(HookPhase.UNLOAD, "variable"), INVAL),
    "hook of the guest": (lambda b: b.hook(HookPhase.UNLOAD, "minor"), INVAL),
    "half a hook": (more(HOOKS + "load", bytes(4)), INVAL),
    "null hook": (more(HOOKS + "load", bytes(8)), INVAL),
    "two apply hooks": (apply_twice, INVAL),
    "unknown symbol": (refer("nobody", 1), errno.ENOENT),
    "relocation of an unknown type": (refer("hook", 99), NOSUP),
    "relocation past its section": (refer("hook", 1, offset=9), INVAL),
    "relocation far past its section": (refer("hook", 1, offset=1 << 63), INVAL),
    "relative relocation that does not fit": (refer("hook", 2, addend=1 << 40), errno.EOVERFLOW),
    "absolute relocation that does not fit": (refer("hook", 11, addend=1 << 40), errno.EOVERFLOW),
    "unsigned relocation that does not fit": (refer("hook", 10, addend=-(1 << 40)), errno.EOVERFLOW),
    "symbol of the guest": (lambda b: b.text("minor", b"\xc3"), errno.EEXIST),
    "writable text": (flags(".text", TEXT | DATA), INVAL),
    "alignment of three": (lambda b: setattr(b.sections[".data"], "align", 3), INVAL),
    "alignment of a gigabyte": (lambda b: setattr(b.sections[".data"], "align", 1 << 30), INVAL),
    "a gigabyte of nothing": (size(".data", 1 << 30), errno.ENOMEM),
    "2^63 bytes of nothing": (size(".data", 1 << 63), errno.ENOMEM),
    "section longer than the file": (lambda b: setattr(b.sections[".data"], "size", 1 << 30), INVAL),
    "half an exception entry": (more(EX_TABLE, bytes(4)), INVAL),
    "exception outside of the text": (more(EX_TABLE, bytes(8)), INVAL),
    "half an alternative": (alternative(bytes(11)), INVAL),
    "alternative outside of the text": (alternative(struct.pack("<iiHBB", 0, 0, 0, 5, 1)), INVAL),
    "alternative longer than its place": (alternative(struct.pack("<iiHBB", 0, 0, 0, 1, 5)), INVAL),
    "half a bug frame": (fresh(".bug_frames.0", bytes(12)), INVAL),
    "half an alternative call": (fresh(".alt_call_sites", bytes(6)), INVAL),
    "alternative call outside of the text": (fresh(".alt_call_sites", bytes(4)), INVAL),
    "alternatives without replacements": (alternative(bytes(12), replacement=False), INVAL),
}


@pytest.mark.parametrize("case", list(CASES))
def test_refused(case: str, made: Patched) -> None:
    spoil, number = CASES[case]
    builder = good(made)
    spoil(builder)
    check_refused(made, builder.build(), number)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 40


def test_the_good_one_is_good(made: Patched) -> None:
    made.registry.upload("payload", good(made).build())
    assert made.registry.record("payload").payload.metadata == b"LIVEPATCH_RULEZ=1\0"


def test_one_build_id_is_one_payload(made: Patched) -> None:
    made.registry.upload("one", good(made).build())
    with pytest.raises(PayloadError, match="EEXIST"):
        made.registry.upload("two", good(made).build())


def test_force_takes_a_payload_for_another_guest(made: Patched) -> None:
    builder = good(made)
    builder.sections[HOST_DEPENDS].data[:] = note(b"another")
    made.registry.upload("payload", builder.build(), flags=1)


def test_nothing_to_patch(made: Patched) -> None:
    builder = made.builder(b"nothing")
    builder.text("hook", b"\xc3")
    check_refused(made, builder.build(), errno.EINVAL)


def test_payloads_that_depend_on_each_other(made: Patched) -> None:
    """A circle cannot be entered, but by NODEPS."""
    for own, other in ((b"a", b"b"), (b"b", b"a")):
        builder = made.builder(own, other)
        builder.text(f"{own.decode()}_version", returning(NEW))
        builder.replace("version", f"{own.decode()}_version", old_size=len(VERSION_CODE))
        made.registry.upload(own.decode(), builder.build())
    for name in ("a", "b"):
        with pytest.raises(LivepatchError) as caught:
            made.registry.action(name, 3)
        assert caught.value.errno == errno.EINVAL
