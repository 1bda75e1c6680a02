from __future__ import annotations

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
