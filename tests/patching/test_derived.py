from __future__ import annotations

import struct

from pvops_core.images import load_image
from pvops_core.ops import LAYOUTS, Convention
from pvops_core.patching.derived import DERIVED, layout_from_types
from pvops_core.patching.kernel import plan_kernel, read_kernel
from pvops_core.testing.kernels import SmallKernel

LAYOUT = LAYOUTS["6.1-64"]
THUNKS = {slot.path for slot in LAYOUT.slots if slot.op.convention is Convention.CALLEE_SAVE}


def btf(paths: list[str], *, gap: int = 0) -> bytes:
    """A type section in which paravirt_patch_template has these members, one level of structures a dot."""
    strings, types = b"\0", [struct.pack("<III", 0, 2 << 24, 0)]  # type 1: void *

    def text(name: str) -> int:
        nonlocal strings
        if b"\0" + name.encode() + b"\0" not in strings:
            strings += name.encode() + b"\0"
        return strings.index(b"\0" + name.encode() + b"\0") + 1

    def structure(name: str, members: list[tuple[str, int, int]]) -> int:
        body = b"".join(struct.pack("<III", text(member), number, bits) for member, number, bits in members)
        types.append(struct.pack("<III", text(name), 4 << 24 | len(members), 0) + body)
        return len(types)

    thunk = structure("paravirt_callee_save", [("func", 1, 0)])

    def build(name: str, inside: list[str], full: str) -> tuple[int, int]:
        members, bits = [], 0
        heads = list(dict.fromkeys(path.partition(".")[0] for path in inside))
        for head in heads:
            below = [path.partition(".")[2] for path in inside if path.partition(".")[0] == head]
            path = f"{full}.{head}".strip(".")
            if below == [""]:
                number, size = (thunk if path in THUNKS else 1), 64
            else:
                number, size = build(f"pv_{head}_ops", below, path)
            members.append((head, number, bits))
            bits += size + gap
        return structure(name, members), bits

    build("paravirt_patch_template", paths, "")
    body = b"".join(types)
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings)) + body + strings


def image(paths: list[str], kernel: SmallKernel | None = None, *, gap: int = 0) -> bytes:
    builder = (kernel or SmallKernel(LAYOUT)).builder()
    builder.section(".BTF", btf(paths, gap=gap))
    return builder.build()


PATHS = [slot.path for slot in LAYOUT.slots]


def test_the_catalogues_layout_is_recognised() -> None:
    assert layout_from_types(load_image(image(PATHS))) is LAYOUT


def test_another_generation_is_laid_out_by_its_types() -> None:
    """A kernel whose table has an op more and two fewer: numbers shift, and sites are named and patched as ever."""
    paths = [path for path in PATHS if path not in {"cpu.wbinvd", "mmu.exit_mmap"}]
    paths.insert(3, "cpu.brand_new")
    kernel = SmallKernel(LAYOUT, types=range(len(paths)))
    plan = plan_kernel(read_kernel(load_image(image(paths, kernel))), [], 1)
    layout = plan.kernel.layout
    assert layout.name == DERIVED
    assert [slot.path for slot in layout.slots] == paths
    assert layout.by_path("irq.save_fl").op is LAYOUT.by_path("irq.save_fl").op
    assert layout.by_path("cpu.brand_new").op.convention is Convention.SYSV
    assert {site.paravirt[0] for site in plan.sites} == {0xE8, 0x66}


def test_an_iret_that_only_types_know_is_jumped_to() -> None:
    """A site of 5.10's ``cpu.iret`` becomes ``jmp rel32``, as a recorded boot of it has it."""
    paths = ["cpu.iret", *PATHS]
    kernel = SmallKernel(LAYOUT, types=range(len(PATHS)))
    layout = layout_from_types(load_image(image(paths, kernel)))
    assert layout is not None
    assert layout.by_path("cpu.iret").op.convention is Convention.JUMP


def test_a_table_that_is_not_all_pointers_is_left_alone() -> None:
    assert layout_from_types(load_image(image(PATHS, gap=64))) is None


def test_no_types_no_layout() -> None:
    assert layout_from_types(load_image(SmallKernel(LAYOUT).builder().build())) is None
