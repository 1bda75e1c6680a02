"""drgn's view of a kernel's types, made of type information that is written here."""

from __future__ import annotations

import struct
from pathlib import Path

import drgn
import pytest

from pvops_core.dumps.drgntypes import add_types, open_dump
from pvops_core.errors import ImageError, UsageError
from pvops_core.images import load_image
from pvops_core.testing.images import ElfBuilder
from tests.guest.types.test_structs import FUNCTION, MEMORY, image, sample

MEMORY_OF = struct.pack(
    "<iI8sQQQIIQ", -7, 5, b"init\0x", MEMORY + 0x300, MEMORY + 0x310, FUNCTION, 0x1F5, 0, 0x200000001
)
SYMBOLS = {"init_task": MEMORY, "counter": MEMORY + 0x200, "do_it": FUNCTION, "after": FUNCTION + 8}


@pytest.fixture
def prog() -> drgn.Program:
    made = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    memory = MEMORY_OF.ljust(0x400, b"\0")
    made.add_memory_segment(MEMORY, len(memory), lambda _at, count, offset, _physical: memory[offset:][:count])
    add_types(made, image(sample(), SYMBOLS))
    return made


def test_structures_are_read_by_their_types(prog: drgn.Program) -> None:
    task = prog["init_task"]
    assert (task.type_.type_name(), task.type_.size) == ("struct task_struct", 360)
    assert (task.pid.value_(), task.comm.string_(), task.state.format_()) == (-7, b"init", "(enum state)DEAD")
    assert task.mm.value_() == MEMORY + 0x300
    assert task.handler.type_.type.kind is drgn.TypeKind.FUNCTION
    assert (task.whole.value_(), task.left.value_(), task.right.value_()) == (0x200000001, 1, 2)


def test_bit_fields_are_of_their_width(prog: drgn.Program) -> None:
    """0x1f5: low 5 in bits 0 to 2, minus -2 in bits 3 to 6, yes in bit 9."""
    flags = prog["init_task"].flags
    assert (flags.low.value_(), flags.minus.value_(), flags.yes.value_()) == (5, -2, False)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("struct task_struct", drgn.TypeKind.STRUCT),
        ("pid_t", drgn.TypeKind.TYPEDEF),
        ("enum state", drgn.TypeKind.ENUM),
        ("unsigned long", drgn.TypeKind.INT),
        ("_Bool", drgn.TypeKind.BOOL),
        ("struct mm_struct *", drgn.TypeKind.POINTER),
    ],
)
def test_types_are_found_by_name(prog: drgn.Program, name: str, kind: drgn.TypeKind) -> None:
    assert prog.type(name).kind is kind


def test_constants_and_variables_are_found(prog: drgn.Program) -> None:
    assert prog["DEAD"].value_() == 5
    assert prog["LOW"].value_() == -1
    assert (prog["counter"].address_, prog["counter"].type_.type_name()) == (MEMORY + 0x200, "unsigned int")


@pytest.mark.parametrize("name", ["nowhere", "do_it"])
def test_what_has_no_type_is_no_object(prog: drgn.Program, name: str) -> None:
    with pytest.raises(KeyError):
        prog[name]


def test_a_type_that_is_not_there_is_not_found(prog: drgn.Program) -> None:
    with pytest.raises(LookupError):
        prog.type("struct nowhere")


def test_a_symbol_reaches_to_the_next(prog: drgn.Program) -> None:
    assert prog.symbol(FUNCTION + 7).name == "do_it"
    assert prog.symbol("after").size == 1
    with pytest.raises(LookupError):
        prog.symbol(FUNCTION + 9)


def test_a_kernel_without_type_information_is_refused() -> None:
    builder = ElfBuilder()
    builder.text(".text", bytes(16))
    with pytest.raises(UsageError, match="no type information"):
        add_types(drgn.Program(), load_image(builder.build(), "bare"))


def test_a_file_that_is_no_dump_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "core"
    kernel = image(sample(), SYMBOLS)
    with pytest.raises(UsageError, match="does not open it"):
        open_dump(path, kernel)
    path.write_bytes(b"no core")
    with pytest.raises(UsageError, match="does not open it"):
        open_dump(path, kernel)
    with pytest.raises(ImageError):
        open_dump(path, path)
