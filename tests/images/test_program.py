"""Programs' headers, and what is none."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import ImageError
from pvops_core.images.program import read_program
from tests.programs import program


@pytest.mark.parametrize(("bits", "machine"), [(64, "x86_64"), (32, "i386")])
@pytest.mark.parametrize("linker", ["", "/lib/ld-linux.so.2"])
def test_machine_and_dynamic_linker(bits: int, machine: str, linker: str) -> None:
    found = read_program(program(bits, linker), "it")
    assert (found.machine, found.interpreter) == (machine, linker)


def _with(at: int, data: bytes) -> bytes:
    made = bytearray(program())
    made[at : at + len(data)] = data
    return bytes(made)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is no ELF file"),
        (b"#!/bin/sh\n", r"is no ELF file \(begins 23 21 2f 62\)"),
        (program()[:20], "is a damaged ELF file"),
        (_with(18, b"\xb7\0"), "is a 64-bit program for EM_AARCH64"),
        (_with(18, b"\3\0"), "is a 64-bit program for EM_386"),
        (_with(16, b"\1\0"), "is of type ET_REL"),
        (_with(16, b"\4\0"), "is of type ET_CORE"),
    ],
)
def test_what_no_kernel_would_start(data: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        read_program(data, "it")
    assert caught.value.path == "it"


@given(st.integers(0, 300), st.binary(min_size=1, max_size=8))
def test_damage_is_told_or_does_no_harm(at: int, data: bytes) -> None:
    broken = bytearray(program(64, "/lib/ld.so"))
    broken[at : at + len(data)] = data
    with contextlib.suppress(ImageError):
        assert read_program(bytes(broken), "it").machine in {"x86_64", "i386"}
