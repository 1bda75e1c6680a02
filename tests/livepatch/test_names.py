"""A payload says by name what it replaces; of a name that two functions have it must say which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.cli import main
from pvops_core.kinds import MachineKind
from pvops_core.livepatch.payload.contents import FUNC, FUNCS
from pvops_core.livepatch.payload.objects import read_object
from pvops_core.testing.images import ElfBuilder

if TYPE_CHECKING:
    from pathlib import Path

TEXT = 0xFFFFFFFF81000000


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """Two functions of 32 bytes called show, and one called alone."""
    builder = ElfBuilder(base=TEXT)
    builder.text(".text", bytes(0x60), address=TEXT)
    for name, at in (("show", TEXT), ("show", TEXT + 0x20), ("alone", TEXT + 0x40)):
        builder.symbol(name, at)
    (tmp_path / "new.c").write_text("#include <livepatch.h>\nint new_show(void) { return 7; }\n")
    path = tmp_path / "vmlinux"
    path.write_bytes(builder.build())
    return path


def build(kernel: Path, function: str) -> int:
    source, output = kernel.with_name("new.c"), kernel.with_name("new.livepatch")
    words = ["livepatch", "build", str(source), "-o", str(output), "--kernel", str(kernel), "--function", function]
    return main(words)


@pytest.mark.parametrize(
    ("function", "address"),
    [("show,2=new_show", TEXT + 0x20), (f"show@{TEXT:#x}", TEXT), ("alone=new_show", 0), ("alone,1=", TEXT + 0x40)],
)
def test_which_function_is_kept_by_address(kernel: Path, function: str, address: int) -> None:
    assert build(kernel, function) == 0
    item = read_object(kernel.with_name("new.livepatch").read_bytes(), "new", MachineKind.X86_64)
    section = item.section(FUNCS)
    assert section is not None
    _name, _new, old, _new_size, old_size, *_ = FUNC[64].unpack(section.data[: FUNC[64].size])
    assert (old, old_size) == (address, 0x20)
    names = item.section(".rodata.livepatch")
    assert names is not None
    assert bytes(names.data) == (b"alone\0" if function.startswith("alone") else b"show\0")


@pytest.mark.parametrize("function", ["show=new_show", "show,3=new_show", "show@0x10=new_show", "shown=new_show"])
def test_a_name_that_does_not_say_which_is_refused(
    kernel: Path, function: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(kernel, function) == 2
    said = capsys.readouterr().err
    assert "no symbol 'shown'" in said or f"show,1 at {TEXT:#x}, show,2 at {TEXT + 0x20:#x}" in said
    assert not kernel.with_name("new.livepatch").exists()
