from __future__ import annotations

import os

import pytest

from pvops_core.errors import MachineError
from pvops_core.testing.assembly import assemble


def test_labels_are_addresses_from_the_base() -> None:
    assert assemble("x: jmp x", 64, 0x1000) == b"\xeb\xfe"
    assert assemble("mov edi, offset x\nx: .long 7", 32, 0xC0001000).hex() == "bf" + "051000c0" + "07000000"
    wide = assemble("movabs rdi, offset x\nmov rsi, offset x\nlea rdx, [rip + x]\nx: .quad 1", 64, 0xFFFFFFFF80000000)
    assert wide.hex() == "48bf1800008 0ffffffff48c7c618000080488d15000000000100000000000000".replace(" ", "")


def test_it_knows_privileged_and_odd_instructions() -> None:
    assert assemble('mov cr3, rax\ncmpxchg16b [rdi]\nud2\n.asciz "xen"').hex() == "0f22d8480fc70f0f0b78656e00"
    assert assemble("int 0x82\nlcall 0x10, 0x5", 32).hex() == "cd829a050000001000"


def test_what_is_outside_is_an_error() -> None:
    with pytest.raises(MachineError, match="nowhere outside itself"):
        assemble("call nowhere")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("movv rax", "2:1: invalid instruction mnemonic 'movv'"),
        ("nop\nmov rax, [", "unknown token in expression"),
        (".if 1", "unmatched .ifs"),
    ],
)
def test_a_mistake_is_an_error_that_says_where(text: str, why: str) -> None:
    with pytest.raises(MachineError, match="cannot be assembled: ") as raised:
        assemble(text if "2:1" not in why else f"nop\n{text}")
    assert why in str(raised.value)
    assert assemble("nop") == b"\x90", "the next one is none the worse"


def test_other_widths_are_refused() -> None:
    with pytest.raises(MachineError, match="no code of 16 bits"):
        assemble("nop", 16)


def test_a_fork_has_an_assembler_of_its_own() -> None:
    assemble("hlt")
    if (child := os.fork()) == 0:
        os._exit(assemble("cli") != b"\xfa")
    assert os.waitpid(child, 0)[1] == 0
    assert assemble("sti") == b"\xfb"
