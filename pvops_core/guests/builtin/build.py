"""Builds the guest's objects from its source: ``python -m pvops_core.guests.builtin.build`` (or ``make guest``).

The committed objects are what the compiler and linker of ``toolchain`` make of the source, byte for byte, wherever the
tree lies: paths are relative to the source folder, and nothing in the output depends on time or host. Only people who
change the guest need a compiler.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import attrs

from pvops_core.errors import PvopsError, UsageError
from pvops_core.guests.builtin.tables import table_header
from pvops_core.guests.toolchain import FREESTANDING, run, words
from pvops_core.ops import LAYOUTS

HERE = Path(__file__).parent
SOURCE = HERE / "source"
OBJECTS = HERE / "objects"


_COMMON = (*FREESTANDING, "-Wno-unused-parameter", "-fno-crossjumping")  # two sites of one op must stay two
_I386 = words("-m32 -march=i686 -mtune=generic -mregparm=3")
_X86_64 = words("-m64 -march=x86-64 -mtune=generic -mcmodel=kernel -mno-red-zone")
_ONLY_32 = frozenset({"entry_32.S", "exercise_32.c", "drivers_lguest.c"})
_ONLY_64 = frozenset({"entry_64.S", "exercise_64.c"})
_NOT_COMPILED = frozenset({"asm_offsets.c", "guest.lds.S"})
_OFFSET = re.compile(r"^=> (\w+) (.+)$", re.MULTILINE)


@attrs.frozen
class Variant:
    """One object: a layout and how to compile for it.

    Attributes:
        layout: name of the layout in ``pvops_core.ops``.
        flags: compiler flags beyond those that all share.
        emulation: the linker's name for the output format.
        user_base: where the user program is linked to run.
    """

    layout: str
    flags: tuple[str, ...]
    emulation: str
    user_base: int

    @property
    def sources(self) -> frozenset[str]:
        """Files to compile: all but those of the other word size."""
        wide = self.emulation == "elf_x86_64"
        other = _ONLY_32 if wide else _ONLY_64
        names = {path.name for pattern in ("*.c", "*.S") for path in SOURCE.glob(pattern)}
        return frozenset(names - other - _NOT_COMPILED)

    @property
    def path(self) -> Path:
        """The committed object."""
        return OBJECTS / f"guest-{self.layout}.elf"


def _variant(layout: str, *defines: str) -> Variant:
    names = (*defines, f'LAYOUT_NAME="{layout}"')
    flags = tuple(f"-D{name}" for name in names)
    if layout.startswith("6.1"):
        return Variant(layout, (*_X86_64, *flags), "elf_x86_64", 0x400000)
    return Variant(layout, (*_I386, *flags), "elf_i386", 0x8048000)


VARIANTS = {
    variant.layout: variant
    for variant in (
        _variant("2.6.23-lapic", "LAYOUT_2_6_23"),
        _variant("2.6.23-lapic-pae", "LAYOUT_2_6_23", "CONFIG_X86_PAE"),
        _variant("2.6.24", "LAYOUT_2_6_24"),
        _variant("2.6.24-pae", "LAYOUT_2_6_24", "CONFIG_X86_PAE"),
        _variant("6.1-64", "LAYOUT_6_1"),
    )
}


def _offsets(flags: list[str], out: Path) -> None:
    """Numbers that only the compiler knows, for the assembler (as the kernel's asm-offsets.h)."""
    run(["gcc", *flags, "-S", "-o", str(out / "asm_offsets.s"), "asm_offsets.c"], SOURCE)
    pairs = _OFFSET.findall((out / "asm_offsets.s").read_text())
    header = "".join(f"#define {name} {value}\n" for name, value in pairs)
    (out / "asm_offsets.h").write_text(header)


def _tables(variant: Variant, out: Path) -> None:
    """The tables of ops, in the order of the catalogue."""
    (out / "layout.h").write_text(table_header(LAYOUTS[variant.layout]))


def _user_program(variant: Variant, flags: list[str], out: Path) -> None:
    """The user-mode program, linked at its own address and flattened; the kernel carries it as data."""
    run(["gcc", *flags, "-c", "-o", str(out / "user.o"), "user/user.c"], SOURCE)
    link = ["ld", "-m", variant.emulation, "-T", "user/user.lds", f"--defsym=USER_BASE={variant.user_base:#x}"]
    run([*link, "-o", str(out / "user.elf"), str(out / "user.o")], SOURCE)
    run(["objcopy", "-O", "binary", str(out / "user.elf"), str(out / "user.bin")], SOURCE)


def build(variant: Variant) -> bytes:
    """Compile and link one variant; its ELF file as bytes.

    Raises:
        PvopsError: a tool failed; the message holds what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        flags = [*_COMMON, *variant.flags, "-I.", f"-I{out}", f"-ffile-prefix-map={out}=."]
        _tables(variant, out)
        _offsets(flags, out)
        _user_program(variant, flags, out)
        run(
            [
                "gcc",
                *flags,
                "-E",
                "-P",
                "-x",
                "c",
                "-D__ASSEMBLER__",
                "-Ui386",
                "-o",
                str(out / "guest.lds"),
                "guest.lds.S",
            ],
            SOURCE,
        )
        objects = []
        for source in sorted(variant.sources):
            target = str(out / f"{source}.o")
            run(["gcc", *flags, "-c", "-o", target, source], SOURCE)
            objects.append(target)
        elf = out / "guest.elf"
        link = ["ld", "-m", variant.emulation, "--build-id=none", "-z", "max-page-size=4096", "-z", "noexecstack"]
        run([*link, "--no-warn-rwx-segments", "-T", str(out / "guest.lds"), "-o", str(elf), *objects], SOURCE)
        run(["objcopy", "--strip-debug", "--wildcard", "--strip-symbol=*.c", "--strip-symbol=*.o", str(elf)], SOURCE)
        return elf.read_bytes()


def main(names: list[str]) -> int:
    """Build the named layouts, or all of them, into the objects folder."""
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise UsageError(f"no guest for {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    OBJECTS.mkdir(exist_ok=True)
    for name in names or VARIANTS:
        VARIANTS[name].path.write_bytes(build(VARIANTS[name]))
        sys.stdout.write(f"{VARIANTS[name].path.name}\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PvopsError as error:
        sys.exit(str(error))
