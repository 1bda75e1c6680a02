"""Values in memory by type information, both written here."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any

import pytest

from pvops_core.errors import MemberError, StructureError
from pvops_core.guest.types.ctypes import DEPTH_LIMIT, CTypes
from pvops_core.guest.types.structs import Structures
from pvops_core.images import load_image
from pvops_core.images.btf import Btf, read_btf
from pvops_core.machine import GuestFault
from pvops_core.testing.images import ElfBuilder
from pvops_core.testing.types import ARRAY, CONST, ENUM, INT, PROTO, PTR, STRUCT, TYPEDEF, UNION, Types

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

MEMORY, SIZE, FUNCTION = 0x1000, 0x400, 0xFFFFFFFF81000000
VAR, ENUM64, FWD = 14, 19, 7
FLAGGED = 1 << 31
SIGNED, CHAR, BOOL = 1 << 24, 2 << 24, 4 << 24


def integer(types: Types, name: str, size: int, encoding: int = 0, bits: int = 0) -> int:
    return types.add(INT, name, size, tail=struct.pack("<I", encoding | (bits or 8 * size)))


def array(types: Types, element: int, index: int, count: int) -> int:
    return types.add(ARRAY, "", 0, tail=struct.pack("<III", element, index, count))


def rows(types: Types, *entries: tuple[str, *tuple[int, ...]]) -> bytes:
    """Members, or enumerators: a name, then words."""
    return b"".join(struct.pack(f"<{len(words) + 1}I", types.text(name), *words) for name, *words in entries)


def sample() -> bytes:
    """A task with a member of each sort."""
    types = Types()
    unsigned = integer(types, "unsigned int", 4)
    signed = integer(types, "int", 4, SIGNED)
    wide = integer(types, "long unsigned int", 8)
    char = integer(types, "char", 1, SIGNED)
    boolean = integer(types, "_Bool", 1, BOOL)
    three_bits = integer(types, "unsigned int", 4, 2 << 16, bits=3)
    state = types.add(ENUM, "state", 4, length=2, tail=rows(types, ("RUNNING", 0), ("DEAD", 5)))
    level = types.add(ENUM64, "level", 8, length=1 | FLAGGED, tail=rows(types, ("LOW", 0xFFFFFFFF, 0xFFFFFFFF)))
    text, numbers, flexible = (array(types, *each) for each in ((char, wide, 8), (unsigned, wide, 20), (wide, wide, 0)))
    mm = types.struct("mm_struct", [("pgd", wide, 0), ("count", signed, 64)], 16)
    node = types.struct("list_head", [], 16)
    to_mm, to_char = types.add(PTR, "", mm), types.add(PTR, "", char)
    function = types.add(PTR, "", types.add(PROTO, "", 0))
    number_t = types.add(TYPEDEF, "pid_t", types.add(CONST, "", signed))
    fields = (("low", unsigned, 3 << 24), ("minus", signed, 4 << 24 | 3), ("yes", boolean, 1 << 24 | 9))
    bits = types.add(STRUCT, "flags", 4, length=3 | FLAGGED, tail=rows(types, *fields))
    inner = types.struct("", [("left", unsigned, 0), ("right", unsigned, 32)], 8)
    either = types.struct("", [("whole", wide, 0), ("", inner, 0)], 8, UNION)
    matrix = array(types, numbers, wide, 2)
    types.struct(
        "task_struct",
        [
            ("pid", number_t, 0),
            ("state", state, 32),
            ("comm", text, 64),
            ("mm", to_mm, 128),
            ("name", to_char, 192),
            ("handler", function, 256),
            ("flags", bits, 320),
            ("old", three_bits, 352),
            ("", either, 384),
            ("mms", array(types, mm, wide, 2), 448),
            ("numbers", numbers, 704),
            ("tasks", node, 1344),
            ("level", level, 1472),
            ("on", boolean, 1536),
            ("letter", char, 1544),
            ("matrix", matrix, 1600),
            ("rest", flexible, 2880),
        ],
        360,
    )
    types.add(VAR, "counter", unsigned, tail=bytes(4))
    types.add(VAR, "current_task", types.add(PTR, "", 0), tail=bytes(4))
    types.add(FWD, "hidden", 0)
    return types.build()


class Memory:
    """Some bytes, with nothing around them."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)

    def read(self, va: int, length: int) -> bytes:
        if not MEMORY <= va <= va + length <= MEMORY + SIZE:
            raise GuestFault("not mapped", vector=14, address=va)
        return bytes(self.data[va - MEMORY :][:length])

    def put(self, offset: int, code: str, *values: int | bytes) -> None:
        struct.pack_into("<" + code, self.data, offset, *values)


def image(btf: bytes, symbols: dict[str, int]) -> KernelImage:
    builder = ElfBuilder()
    builder.text(".text", bytes(16), address=FUNCTION)
    for name, at in symbols.items():
        builder.symbol(name, at)
    builder.section(".BTF", btf)
    return load_image(builder.build())


@pytest.fixture
def memory() -> Memory:
    made = Memory()
    made.put(0, "iI8sQQQ", -7, 5, b"init\0x", MEMORY + 0x300, MEMORY + 0x310, FUNCTION)
    made.put(40, "II", 0b10_1100_1101, 0b10100)
    made.put(48, "II", 1, 2)
    made.put(56, "QiiQi", 0x10, -1, 0, 0x20, -2)
    made.put(88, "20I", *range(20))
    made.put(168, "QQ", MEMORY + 0x200 + 168, 0)
    made.put(184, "q?c", -1, 1, b"A")
    made.put(200, "40I", *range(100, 140))
    made.put(360, "QQ", 77, 78)
    made.put(0x200 + 168, "Q", MEMORY + 168)
    made.put(0x300, "Qi", 0xABC, 3)
    made.put(0x310, "6s", b"hello\0")
    made.put(0x380, "QQ", 0, 0x10)
    made.put(0x390, "QQ", MEMORY, MEMORY + 0x200)
    made.put(0x3B0, "IIII", 11, 0, 0, 0)
    made.put(0x3C0, "I", 22)
    return made


@pytest.fixture
def guest(memory: Memory) -> Structures:
    symbols = {
        "handle": FUNCTION,
        "init_task": MEMORY,
        "__per_cpu_offset": MEMORY + 0x380,
        "counter": MEMORY + 0x3B0,
        "untyped": MEMORY + 0x3B0,
        "current_task": MEMORY + 0x390 - 0x10 + 0x10,
    }
    return Structures(image(sample(), symbols), memory, 2)


def test_members_are_what_c_has_there(guest: Structures) -> None:
    task = guest.struct("task_struct", MEMORY)
    assert (task.pid, task.state, task.comm, task.level, task.on, task.letter) == (-7, 5, "init", -1, True, 65)
    assert (task.whole, task.left, task.right) == (2 << 32 | 1, 1, 2)
    assert (task.flags.low, task.flags.minus, task.flags.yes, task.old) == (5, -7, True, 5)
    assert (task["pid"], task.type_, task.address_) == (-7, "struct task_struct", MEMORY)
    assert [mm.count for mm in task.mms] == [-1, -2]
    assert (len(task.numbers), list(task.numbers), task.numbers[-1]) == (20, list(range(20)), 19)
    assert bytes(task.numbers)[:8] == struct.pack("<II", 0, 1)
    assert [row[3] for row in task.matrix] == [103, 123]
    assert (len(task.rest), task.rest[0], task.rest[1]) == (0, 77, 78)
    assert {"left", "mm", "type_"} <= set(dir(task))
    assert "whole" in list(task)
    assert task == guest.struct("struct task_struct", "init_task") != guest.struct("task_struct", MEMORY + 8)
    assert not hasattr(task, "nothing")


def test_pointers_lead_on(guest: Structures) -> None:
    task = guest.struct("task_struct", MEMORY)
    assert (task.mm.pgd, task.mm.count, task.mm[0].pgd, int(task.mm)) == (0xABC, 3, 0xABC, MEMORY + 0x300)
    assert task.mm == MEMORY + 0x300
    assert task.mm
    assert task.mm[-1].address_ == MEMORY + 0x2F0
    assert hex(task.mm) == hex(MEMORY + 0x300)
    assert {task.mm: 1}[task.mm] == 1
    assert (task.name.string_(), task.name.string_(2), task.name[1]) == ("hello", "he", ord("e"))
    assert guest.struct("mm_struct", task.mm).pgd == 0xABC
    assert guest.struct("struct mm_struct *", MEMORY + 16) == task.mm
    assert guest.struct("pid_t", MEMORY) == -7
    assert repr(task.mm) == f"(struct mm_struct *){MEMORY + 0x300:#x}"


def test_values_are_written_as_c(guest: Structures) -> None:
    task = guest.struct("task_struct", MEMORY)
    assert str(task.mm[0]) == "(struct mm_struct){\n\t.pgd = 2748,\n\t.count = 3,\n}"
    text = str(task)
    for line in (
        "\t.state = DEAD,",
        '\t.comm = "init",',
        "\t.level = LOW,",
        "\t.on = true,",
        f"\t.handler = (function *){FUNCTION:#x} /* handle */,",
        f"\t.mm = (struct mm_struct *){MEMORY + 0x300:#x},",
        "\t.flags = {\n\t\t.low = 5,\n\t\t.minus = -7,\n\t\t.yes = true,\n\t},",
        "\t.numbers = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, ... },",
        "\t.rest = {},",
    ):
        assert line in text
    assert str(task.numbers).startswith("{ 0, 1,")
    # What has no memory is said in its place.
    assert "/* pid: the kernel has no memory there */" in str(guest.struct("task_struct", 0x10))


def test_per_cpu_variables_and_lists(guest: Structures) -> None:
    assert [guest.per_cpu("counter", cpu) for cpu in (0, 1)] == [11, 22]
    assert guest.per_cpu("untyped", 1, "unsigned int") == 22
    assert guest.current(0).comm == "init"
    assert guest.current(0).address_ == MEMORY
    assert guest.offset("task_struct", "mms") == 56
    assert guest.offset("task_struct", "tasks") == 168
    head = guest.struct("task_struct", MEMORY).tasks
    assert [each.address_ for each in guest.entries(head, "task_struct", "tasks")] == [MEMORY + 0x200]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda guest: guest.struct("no_struct", 0), "no_struct: the kernel's type information has no such type"),
        (lambda guest: guest.struct("union task_struct", 0), "no such type"),
        (lambda guest: guest.struct("hidden", 0), "no such type"),
        (lambda guest: guest.struct("pid_t **", 0), "no such pointer"),
        (lambda guest: guest.struct("task_struct", "nowhere"), "no symbol 'nowhere'"),
        (lambda guest: guest.struct("task_struct", 0).pid, "at 0x0: the kernel has no memory there"),
        (lambda guest: guest.struct("task_struct", MEMORY)["com"], r"no member 'com' \(did you mean comm"),
        (lambda guest: guest.struct("task_struct", MEMORY).name["x"], "points to no structure"),
        (lambda guest: guest.struct("task_struct", MEMORY).handler[0], "function"),
        (lambda guest: guest.struct("struct mm_struct *", MEMORY + 0x180).pgd, r"mm_struct \*.pgd at 0x0: .* NULL"),
        (lambda guest: guest.per_cpu("counter", 2), "there is no CPU 2 of 2"),
        (lambda guest: guest.per_cpu("untyped", 0), "does not say of what type"),
        (lambda guest: guest.per_cpu("nothing", 0, "int"), "no symbol 'nothing'"),
        (lambda guest: guest.offset("task_struct", "mm.pgd.x"), "no member"),
    ],
)
def test_what_is_not_there_is_told(guest: Structures, action: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(StructureError, match=message):
        action(guest)


def test_as_an_attribute_a_member_that_is_not_there_is_python_s_error(guest: Structures) -> None:
    task = guest.struct("task_struct", MEMORY)
    for value in (task, task.mm):
        with pytest.raises(AttributeError, match="has no member 'nothing'") as caught:
            _ = value.nothing
        assert isinstance(caught.value.__cause__, MemberError)
    with pytest.raises(IndexError, match=r"unsigned int \[20\] has no element 20"):
        _ = task.numbers[20]


def test_a_kernel_without_types_says_so(memory: Memory) -> None:
    with pytest.raises(StructureError, match="has no type information"):
        Structures(image(b"", {}), memory, 1)  # type: ignore[arg-type]


def test_types_that_do_not_end_are_refused() -> None:
    types = Types()
    types.add(TYPEDEF, "loop", 1)
    types.struct("inside", [("", 2, 0)], 8)
    types.struct("deep", [("self", 3, 0)], 8)
    array(types, 4, 1, 2)
    types.struct("wide", [("a", 1, 0)] * 5000, 8)
    types.struct("beyond", [("a", 999, 0)], 8)
    known = read_btf(image(types.build(), {}))
    assert known is not None
    made = CTypes(known, 8)
    with pytest.raises(StructureError, match="does not end"):
        made.resolved(1)
    with pytest.raises(StructureError, match="does not end"):
        made.members(2)
    with pytest.raises(StructureError, match="no size"):
        made.size(4)
    with pytest.raises(StructureError):
        made.members(5)
    with pytest.raises(StructureError, match="no type 999"):
        made.members(6)


def test_types_that_nest_without_end_are_shown_as_far_as_may_be(memory: Memory) -> None:
    """Arrays of sixteen of arrays of sixteen, thirty deep."""
    types = Types()
    number = integer(types, "unsigned int", 4)
    for _ in range(28):
        number = array(types, types.struct("", [("a", number, 0), ("b", number, 0)], 0), 1, 16)
    types.struct("tree", [("trunk", number, 0)], 0)
    guest = Structures(image(types.build(), {}), memory, 1)  # type: ignore[arg-type]
    assert len(str(guest.struct("tree", MEMORY))) < 1 << 21


@pytest.mark.parametrize("seed", range(40))
def test_damaged_types_end_in_errors(seed: int, memory: Memory) -> None:
    """Of a section that is still read, whatever its bytes."""
    chance, data = random.Random(seed), bytearray(sample())
    for _ in range(chance.randrange(1, 12)):
        data[chance.randrange(24, len(data))] = chance.randrange(256)
    kernel = image(bytes(data), {"handle": FUNCTION})
    try:
        guest = Structures(kernel, memory, 1)  # type: ignore[arg-type]
        task = guest.struct("task_struct", MEMORY)
        str(task)
        str(task.mm)
    except (StructureError, AttributeError):
        pass
    assert DEPTH_LIMIT < 100
    assert kernel.types is None or isinstance(kernel.types, Btf)
