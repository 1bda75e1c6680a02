"""The walls of docs/architecture.md, read off the sources: who may import what, and who may write guest text."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pvops_core.backends import load_backends
from pvops_core.machine.memory import PhysicalMemory
from pvops_core.session import Session

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "pvops_core"
BACKENDS = sorted(
    path.parent for kind in ("plugins", "examples") for path in ROOT.glob(f"{kind}/*/pvops_*/__init__.py")
)
SOURCES = sorted(path for folder in (CORE, *BACKENDS) for path in folder.rglob("*.py"))
MOST_LINES = 500
MOST_FILES = 20
LONGEST_CIRCLE = 4
BACKEND_NAMES = tuple(path.name for path in BACKENDS)

SAME_NAMES = {
    "Abi": "lguest's and Xen's: each backend's calls, said in its own distribution",
    "Backend": "API 1's, until API 3",
    "Call": "lguest's and KVM's numbers of hypercalls, each in its own distribution",
    "Msr": "KVM's numbers in an example; Xen's rules",
    "OpsState": "what a backend's ops remember: native's, and an example's, which knows native's by its package alone",
    "Platform": "API 1's, until API 3",
    "Session": "API 1's, until API 3",
    "Switch": "`backends.Switch` is public: what a backend calls; `switchboard.Switch`: what came of it",
}
"""Names that classes of several modules have, and why; a word has one meaning elsewhere."""

HOST_MODULES = {"time", "random", "secrets", "uuid", "datetime"}
MAY_USE_HOST = {
    "pvops_core/machine/run/scheduler.py": "a generator made from the run's seed",
    "plugins/lguest/pvops_lguest/platform.py": "a generator made from the run's seed",
    "plugins/xen/pvops_xen/hypervisor/builder.py": "a generator made from the domain's options",
    "plugins/native/pvops_native/devices/cmos.py": "calendar arithmetic on the virtual clock",
    "pvops_core/testing/": "generators made from a test's seed",
    "plugins/xen/pvops_xen/testing/": "generators made from a test's seed",
    "pvops_core/child/": "wall time that a process may take",
    "pvops_core/study/": "wall time beside what is kept of a run, and of a study that goes on",
    "pvops_core/runs/": "wall time beside a run, in the report only",
    "pvops_core/backends/loading/isolation.py": "timers of the host's go on while a plugin is imported",
    "pvops_core/cli/": "wall-time limits around a run",
}
HOST_CLOCKS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "now"}
HOST_CHANCE = {"urandom", "getrandom", "SystemRandom", "default_rng"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a source names anywhere, also inside functions and for types alone."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{name_of(path)} imports relatively"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(library: str) -> set[str]:
    return {name_of(path) for path in SOURCES if any(name.split(".")[0] == library for name in imports(path))}


def rooms() -> list[str]:
    """The rooms in the order of docs/architecture.md; each may import those before it."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    found = re.search(r"never below:\n(.*?)\.\s", text, re.DOTALL)
    assert found is not None
    return re.findall(r"`(\w+)`", found[1])


def room_of(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def test_the_sources_are_found() -> None:
    assert len(SOURCES) > 200
    assert {path.name for path in BACKENDS} >= {"pvops_native", "pvops_xen", "pvops_lguest", "pvops_kvm"}


ENGINE_ROOM = "pvops_core/machine/unicorn/"
ASSEMBLER = "pvops_core/testing/assembler.py"  # LLVM's: what it makes is the guest's, and nothing of it runs here


@pytest.mark.parametrize("library", ["unicorn", "ctypes", "llvmlite"])
def test_one_folder_knows_the_engine_and_native_code(library: str) -> None:
    assert not {name for name in importers(library) - {ASSEMBLER} if not name.startswith(ENGINE_ROOM)}


def test_one_module_chooses_that_folder() -> None:
    """Another engine is another folder with the names that this module imports."""
    knowing = {
        name_of(path)
        for path in SOURCES
        if any(name.startswith("pvops_core.machine.unicorn") for name in imports(path))
    }
    assert {name for name in knowing if not name.startswith(ENGINE_ROOM)} == {"pvops_core/machine/engines.py"}


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("unicorn", {"pvops_core/machine/unicorn/engine.py"}),
        # What an instruction does to a caller's registers; which memory it touches.
        ("capstone", {"pvops_core/patching/code/disasm.py", "pvops_core/machine/cpu/memory/decode.py"}),
    ],
)
def test_engine_libraries_have_one_door_for_each_use(library: str, owners: set[str]) -> None:
    assert importers(library) == owners


def test_rooms_import_only_upwards() -> None:
    order = rooms()
    wrong = []
    for path in CORE.rglob("*.py"):
        room = room_of(path)
        if room in {"__init__", "__main__"}:
            continue
        assert room in order, f"docs/architecture.md does not say where {room} is"
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "pvops_core" and len(parts) > 1 and parts[1] in order[order.index(room) + 1 :]:
                wrong.append(f"{name_of(path)} imports {name}")
    assert not wrong


def test_a_crowded_folder_has_an_inside() -> None:
    crowded = [folder for folder in {path.parent for path in SOURCES} if len(list(folder.glob("*.py"))) > MOST_FILES]
    assert not [name_of(folder) for folder in crowded if not any(child.is_dir() for child in folder.glob("[!_]*"))]


def test_imports_make_no_long_circle() -> None:
    """Imports for types alone and those inside functions among them: what is read together stands together."""
    graph = imported()
    circles = [circle for circle in circles_of(graph) if len(circle) > LONGEST_CIRCLE]
    assert not [sorted(circle) for circle in circles]
    across = [circle for circle in circles_of(graph) if len({tuple(name.split(".")[:2]) for name in circle}) > 1]
    assert not [sorted(circle) for circle in across if not all(name.startswith(BACKEND_NAMES) for name in circle)]


def test_a_class_name_has_one_meaning() -> None:
    modules: dict[str, set[str]] = {}
    beside = (path for folder in ("benchmarks", "mutation", "soak") for path in (ROOT / folder).rglob("*.py"))
    for path in (*SOURCES, *beside):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules.setdefault(node.name, set()).add(name_of(path))
    assert {name for name, where in modules.items() if len(where) > 1} == SAME_NAMES.keys()


def imported() -> dict[str, set[str]]:
    """Each module of ours -> those of ours that it imports; a package stands for its ``__init__``."""
    modules = {module_name(path): path for path in SOURCES if "templates" not in path.parts}
    graph = {}
    for module, path in modules.items():
        named = set()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= inside & modules.keys()
                if inside - modules.keys():
                    named.add(node.module)
        graph[module] = named & modules.keys() - {module}
    return graph


def module_name(path: Path) -> str:
    parts = path.relative_to(next(folder.parent for folder in (CORE, *BACKENDS) if folder in path.parents)).parts
    return ".".join(parts).removesuffix(".py").removesuffix(".__init__")


def circles_of(graph: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected parts of more than one module."""
    reached = {module: reachable(graph, module) for module in graph}
    found: list[set[str]] = []
    for module, others in reached.items():
        circle = {other for other in others if module in reached[other]} | {module}
        if len(circle) > 1 and circle not in found:
            found.append(circle)
    return found


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        if (module := waiting.pop()) not in found:
            found.add(module)
            waiting += graph[module]
    return found


def test_the_core_knows_no_backend() -> None:
    backends = {path.name for path in BACKENDS}
    assert not {library: found for library in backends if (found := importers(library) & core_names())}


def core_names() -> set[str]:
    return {name_of(path) for path in CORE.rglob("*.py")}


def test_backends_touch_no_engine_and_start_no_machine() -> None:
    wrong = []
    for path in (path for folder in BACKENDS for path in folder.rglob("*.py")):
        wrong += [f"{name_of(path)} imports {name}" for name in imports(path) if name.endswith(".engine")]
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and node.attr in {"engine", "engines", "emu_start", "emu_stop"}:
                wrong.append(f"{name_of(path)}:{node.lineno} reaches for .{node.attr}")
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "run"
                and ast.unparse(node.func.value).endswith("machine")
            ):
                wrong.append(f"{name_of(path)}:{node.lineno} runs the machine")
    assert not wrong


def test_a_run_knows_neither_the_hosts_clock_nor_its_chance() -> None:
    wrong = []
    for path in SOURCES:
        name = name_of(path)
        used = HOST_MODULES & {module.split(".")[0] for module in imports(path)}
        if used and not name.startswith(tuple(MAY_USE_HOST)):
            wrong.append(f"{name} imports {', '.join(sorted(used))}")
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and node.attr in HOST_CHANCE:
                wrong.append(f"{name}:{node.lineno} uses {node.attr}")
            if (
                isinstance(node, ast.Attribute)
                and node.attr in HOST_CLOCKS
                and isinstance(node.value, ast.Name)
                and node.value.id in HOST_MODULES
                and not name.startswith(
                    (
                        *("pvops_core/child/", "pvops_core/runs/", "pvops_core/study/", "pvops_core/cli/"),
                        "pvops_core/backends/loading/isolation",
                    )
                )
            ):
                wrong.append(f"{name}:{node.lineno} reads {node.value.id}.{node.attr}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "random.Random" and not node.args:
                wrong.append(f"{name}:{node.lineno} draws without a seed")
    assert not wrong


def test_no_source_is_longer_than_a_reader_can_take() -> None:
    sources = [
        *SOURCES,
        *ROOT.glob("tests/**/*.py"),
        *ROOT.glob("plugins/*/tests/**/*.py"),
        *ROOT.glob("benchmarks/*.py"),
    ]
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert not {name: length for name, length in lengths.items() if length > MOST_LINES}


@pytest.mark.parametrize(
    "command",
    [
        "import pvops_core",
        "import pvops_core.cli; assert pvops_core.cli.main(['--version']) == 0",
        "import pvops_core.cli; assert pvops_core.cli.main(['boot', '--help']) == 0",
    ],
    ids=["import", "version", "boot-help"],
)
def test_starting_up_imports_nothing_heavy(command: str) -> None:
    heavy = "{'numba', 'llvmlite', 'unicorn', 'capstone', 'numpy', 'matplotlib'}"
    code = f"import sys; {command}; print(*({heavy} & set(sys.modules)), file=sys.stderr, end='')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("layout", "backend"),
    [("6.1-64", "native"), ("6.1-64", "xen"), ("2.6.24", "lguest"), ("2.6.23-lapic-pae", "xen")],
)
def test_only_pokes_write_the_text_of_a_guest_that_runs(
    layout: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session.of_builtin(layout, backend, backends=load_backends().backends) as session:
        start, end = session.guest.text_range
        vcpu = session.machine.vcpus[0]
        pages = {vcpu.walk(va).pa >> 12 for va in range(start, end, 0x1000)}
        partly = {vcpu.walk(va).pa >> 12 for va in (start, end)}  # may hold what is not text as well
        wrong = []

        def watched(name: str, size: int | None) -> None:
            plain = getattr(PhysicalMemory, name)

            def write(memory: PhysicalMemory, pa: int, value: Any) -> None:  # noqa: ANN401 - bytes or a number
                length = size if size is not None else len(value)
                if {pa >> 12, (pa + length - 1) >> 12} & (pages - partly):
                    wrong.append(f"{name} of {length} bytes at {pa:#x}")
                plain(memory, pa, value)

            monkeypatch.setattr(PhysicalMemory, name, write)

        for name, size in {"write": None, "set_u8": 1, "set_u16": 2, "set_u32": 4, "set_u64": 8}.items():
            watched(name, size)
        before = session.text_sha256()
        assert session.run().reason == "poweroff"
        assert session.text_sha256() != before, "nothing was patched: this proves nothing"
    assert not wrong
