"""What a study asks for, as a TOML file says it: axes, rules, what to measure, limits."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from pvops_core.errors import unknown
from pvops_core.records import JsonRecord, Positive
from pvops_core.study.errors import StudyError

Number = Annotated[int, Meta(ge=0)]
Numbers = Number | str | tuple[Number | str, ...]
"""A number, a range ``"A..B"`` with both ends, or several of them."""
Texts = str | tuple[str, ...]
Value = int | str | tuple[int | str, ...]
Rule = dict[str, Value]
"""Axis -> the values meant: a number, a range, or a name with ``*`` and ``?`` as in file names."""
MEASURES: Final = ("instructions", "calls")
BUILTIN: Final = "builtin"


class KernelAndInitrd(JsonRecord, frozen=True):
    """A kernel with an initial ramdisk of its own.

    Attributes:
        kernel: Path of the kernel.
        initrd: Path of its initial ramdisk; empty for none.
    """

    kernel: str
    initrd: str = ""


class StudySpec(JsonRecord, frozen=True):
    """A study as its file says it. Every list may also be one value.

    Attributes:
        name: Title of its reports; the file's name if not given.
        plugins: Paths of plugins to load beside those installed.
        kernels: Paths of kernels, with `*` for several; `builtin` is the built-in guest, which is run if not given.
        initrd: Initial ramdisk of kernels that have none of their own.
        backends: Backends; all that are installed if not given.
        layouts: Layouts of the built-in guest; all if not given.
        kinds: Only layouts of these machine kinds.
        cpus: Numbers of virtual CPUs.
        memory: Guest memories in MiB; 16 if not given, and 256 for kernels.
        seeds: Seeds of the runs.
        cmdlines: Command lines of the guest.
        workloads: Workloads whose rounds the first process of kernels makes, `NAME` or `NAME:ROUNDS`, each in a cell of
            its own; nothing for none.
        ops: Ops of kernels that the backend's own hooks serve in Python: patterns parted by commas; nothing for none.
        settings: Settings of platforms: `NAME=VALUE` parted by blanks; each goes to the backends that have it.
        repeats: How often each run is made. Repeats tell wall time apart, all else must be the same.
        include: Rules; of all cells only those that match one are run.
        exclude: Rules; cells that match one are left out.
        measure: What costs time to count: `instructions` and `calls` (of ops) of kernels.
        until: Console text at which a kernel's run ends.
        stop_at: Symbol or named point at which a kernel's run ends.
        max_seconds: Wall time, from its first instruction, after which a guest is given up.
        reference: Backend that the others are measured by; the first if not given.
    """

    name: str = ""
    plugins: Texts = ()
    kernels: str | KernelAndInitrd | tuple[str | KernelAndInitrd, ...] = ()
    initrd: str = ""
    backends: Texts = ()
    layouts: Texts = ()
    kinds: Texts = ()
    cpus: Numbers = 1
    memory: Numbers = ()
    seeds: Numbers = 0
    cmdlines: Texts = ""
    workloads: Texts = ""
    ops: Texts = ""
    settings: Texts = ""
    repeats: Positive = 1
    include: Rule | tuple[Rule, ...] = ()
    exclude: Rule | tuple[Rule, ...] = ()
    measure: Texts = ()
    until: str = ""
    stop_at: str = ""
    max_seconds: Annotated[float, Meta(gt=0)] = 120.0
    reference: str = ""


_PLACE: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<key>.*)`)?$", re.DOTALL)
_UNKNOWN: Final = re.compile("Object contains unknown field `(.*)`")
_AT: Final = re.compile(r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)$", re.DOTALL)


def read_spec(path: Path) -> tuple[StudySpec, str]:
    """The study of a file, and the file's text.

    Raises:
        StudyError: it cannot be read, is no TOML, or says what no study has; with the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise StudyError(f"cannot be read: {reason}", str(path)) from failure
    return parse_spec(text, str(path)), text


def parse_spec(text: str, path: str) -> StudySpec:
    """The study that a text says; StudyError as for :func:`read_spec`."""
    try:
        said = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as failure:
        found = _AT.match(str(failure))
        line = int(found["line"]) if found and found["line"] else None
        raise StudyError(f"is no TOML: {found['what'] if found else failure}", path, line) from failure
    try:
        return msgspec.convert(said, StudySpec)
    except msgspec.ValidationError as failure:
        found = _PLACE.match(str(failure))
        what, key = (found["what"], found["key"] or "") if found else (str(failure), "")
        if (missing := _UNKNOWN.match(what)) and not key:
            what, key = unknown("key", missing[1], StudySpec.__struct_fields__).message, missing[1]
        raise StudyError(what, path, line_of(text, key), key) from failure


def line_of(text: str, key: str) -> int | None:
    """Number of the line in which a key such as ``cpus`` or ``exclude[1].backend`` is given, as far as can be told."""
    name, _, rest = key.partition("[")
    inner = rest.partition("].")[2]
    which = int(rest.partition("]")[0]) if rest.partition("]")[0].isdigit() else 0
    table, seen, begin = "", -1, None
    for number, line in enumerate(text.splitlines(), 1):
        if head := re.match(r"\s*\[+\s*([\w.\"'-]+)\s*\]+", line):
            table = head[1].strip("\"'")
            seen += table == name
            begin = number if table == name and seen == which else begin
            continue
        said = re.match(r"\s*[\"']?([\w-]+)[\"']?\s*=", line)
        here = begin and table == name and seen == which
        if said and said[1] == (inner if here else name) and (here or not table):
            return number
    return begin
