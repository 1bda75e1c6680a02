from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pvops_core.errors import ImageError
from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.runs.wire import Inspection, Request
from pvops_core.study.keys import Keys

if TYPE_CHECKING:
    from pvops_core.backends import Loaded

CELL = Cell("native", "6.1-64", MachineKind.X86_64)
PLUGIN = """
from pvops_core.backends import Backend
backend = Backend(name="demo", base="native", api=2)
"""


def key(loaded: Loaded, cell: Cell = CELL, repeat: int = 1, **fields: object) -> str:
    return Keys(loaded.backends).key(Request(cell, **fields), repeat)  # type: ignore[arg-type]


def test_all_that_determines_a_run_is_in_its_key(loaded: Loaded) -> None:

    same = key(loaded)
    assert key(loaded) == same
    assert key(loaded, max_seconds=3.0, plugins=("elsewhere",), without=("broken",)) == same
    others = [
        key(loaded, replace(CELL, **change))
        for change in (
            {"backend": "xen"},
            {"layout": "6.12-64"},
            {"seed": 1},
            {"vcpus": 2},
            {"memory": 32 << 20},
            {"workload": "quiet"},
            {"options": {"rtc": "0"}},
            {"count_instructions": False},
        )
    ]
    others += [
        key(loaded, repeat=2),
        key(loaded, until="x"),
        key(loaded, stop_at="x"),
        key(loaded, max_ns=3),
        key(loaded, examine=True),
        key(loaded, inside=Inspection(trace=True)),
        key(loaded, inside=Inspection(ops=("irq.*",))),
    ]
    assert len({same, *others}) == 1 + len(others)


def test_files_count_by_what_is_in_them(loaded: Loaded, tmp_path: Path) -> None:

    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"kernel")
    (tmp_path / "c").write_bytes(b"kernek")
    cells = [replace(CELL, guest=str(tmp_path / name)) for name in "abc"]
    first, copy, changed = (key(loaded, cell) for cell in cells)
    assert first == copy != changed
    ramdisk = [key(loaded, replace(cells[0], initrd=str(tmp_path / name))) for name in "abc"]
    assert ramdisk[0] == ramdisk[1]
    assert len({first, *ramdisk}) == 3
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        key(loaded, replace(CELL, guest=str(tmp_path / "none")))


_KEYS = """
import sys
sys.path[:0] = {path!r}
from pvops_core.backends import load_backends
from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.runs.wire import Request
from pvops_core.study.keys import Keys
loaded = load_backends(plugins=[sys.argv[1]])
assert not loaded.errors, loaded.errors
for name in ("native", "demo"):
    print(Keys(loaded.backends).key(Request(Cell(name, "6.1-64", MachineKind.X86_64)), 1))
"""


def test_a_plugin_counts_by_its_source_wherever_it_lies(tmp_path: Path) -> None:
    def keys(folder: str, source: str) -> list[str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        file = tmp_path / folder / "demo.py"
        file.write_text(source)
        command = [sys.executable, "-c", _KEYS.format(path=sys.path), str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    first, moved, changed = keys("a", PLUGIN), keys("b", PLUGIN), keys("a", PLUGIN + "# better\n")
    assert first == moved
    assert first[0] == changed[0]
    assert first[1] != changed[1]
