"""The guests among some files and folders, and what stands in TOML files beside them.

``NAME.toml`` beside an image ``NAME`` says what the guest cannot say itself. ``NAME~WORD.toml`` makes a run of its own
of the same image; an image that has such files and no ``NAME.toml`` runs in these ways only.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import attrs

from pvops_core.errors import ImageError, UsageError, unknown
from pvops_core.images import machine_of
from pvops_core.kinds import MachineKind, kind_of
from pvops_core.runs.verdict import Verdict

_ELF, _EXECUTABLE = b"\x7fELF", 2
_BOOT_FLAG, _BOOT_FLAG_AT = b"\x55\xaa", 0x1FE
_NUMBERS: Final = {"cpus": (1, 128), "memory": (1, 1 << 20), "seed": (0, 2**63 - 1)}
"""Each with what it may be; memory in MiB."""
_TEXTS: Final = ("cmdline", "initrd", "until")
_EXPECT: Final = "expect"
_TABLE: Final = "set"


@attrs.frozen
class Wishes:
    """What stands in one TOML file; what does not is None, or missing in ``options``."""

    cmdline: str | None = None
    initrd: str | None = None
    until: str | None = None
    cpus: int | None = None
    memory: int | None = None
    seed: int | None = None
    expect: Verdict | None = None
    options: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class GuestFile:
    """One run to be made.

    Attributes:
        name: the image's name, with ``~WORD`` behind it for one of several ways to run it.
        image: path of the image.
        kind: the machine that it needs.
        wishes: what stands beside it.
    """

    name: str
    image: Path
    kind: MachineKind
    wishes: Wishes = Wishes()


def find_guests(paths: Sequence[Path], only: str = "") -> tuple[GuestFile, ...]:
    """The runs of images and of folders, in order, each once; of a folder what is an image, by name.

    Args:
        paths: images, which have to be some, and folders.
        only: pattern for the names of images in folders, such as ``test-pv*``; empty for all.

    Raises:
        ImageError: a file that was named is no kernel.
        UsageError: a folder cannot be read, or what stands beside an image is wrong.
    """
    found: dict[Path, MachineKind] = {}
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - no name is too long for it
            named = (each for each in _files(path) if fnmatchcase(each.name, only or "*") and _may_be_image(each))
            found |= {each: kind for each in named if (kind := _kind_if_any(each))}
        else:
            found[path] = kind_of(machine_of(path))
    return tuple(run for image, kind in found.items() for run in _runs(image, kind))


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.rglob("*") if path.is_file())
    except OSError as failure:
        raise UsageError(f"{folder}: cannot be read: {failure.strerror}") from failure


def _may_be_image(path: Path) -> bool:
    """An executable ELF file (no object, no library), or a boot sector; what cannot be read is none."""
    try:
        with path.open("rb") as file:
            start = file.read(_BOOT_FLAG_AT + 2)
    except OSError:
        return False
    is_elf = start[:4] == _ELF and int.from_bytes(start[16:18], "little") == _EXECUTABLE
    return is_elf or start[_BOOT_FLAG_AT:] == _BOOT_FLAG


def _kind_if_any(path: Path) -> MachineKind | None:
    try:
        return kind_of(machine_of(path))
    except ImageError:
        return None


def _runs(image: Path, kind: MachineKind) -> Iterator[GuestFile]:
    own = image.with_name(f"{image.name}.toml")
    begin = f"{image.name}~"
    others = sorted(path for path in image.parent.glob("*.toml") if path.name.startswith(begin))
    if own.exists() or not others:
        yield GuestFile(image.name, image, kind, read_wishes(own) if own.exists() else Wishes())
    for path in others:
        yield GuestFile(path.name.removesuffix(".toml"), image, kind, read_wishes(path))


def read_wishes(path: Path) -> Wishes:
    """What stands in a TOML file.

    Raises:
        UsageError: it cannot be read, is no TOML, or has a key or value that it may not have.
    """
    try:
        document = tomllib.loads(path.read_bytes().decode())
    except OSError as failure:
        raise UsageError(f"{path}: cannot be read: {failure.strerror}") from failure
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise UsageError(f"{path}: is no TOML: {failure}") from failure
    for key in document:
        if key not in (there := (*_TEXTS, *_NUMBERS, _EXPECT, _TABLE)):
            raise UsageError(f"{path}: {unknown('key', key, there)}")
    texts: dict[str, Any] = {key: _text(path, key, document[key]) for key in _TEXTS if key in document}
    numbers: dict[str, Any] = {key: _number(path, key, document[key]) for key in _NUMBERS if key in document}
    if "initrd" in texts:
        texts["initrd"] = str(path.parent / texts["initrd"])
    expect = _verdict(path, document[_EXPECT]) if _EXPECT in document else None
    return Wishes(**texts, **numbers, expect=expect, options=_options(path, document.get(_TABLE, {})))


def _text(path: Path, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{path}: {key} is a text, not {value!r}")
    return value


def _number(path: Path, key: str, value: object) -> int:
    least, most = _NUMBERS[key]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{path}: {key} is a number from {least} to {most}, not {value!r}")
    return value


def _verdict(path: Path, value: object) -> Verdict:
    words = [verdict.value for verdict in Verdict]
    if value not in words:
        raise UsageError(f"{path}: {_EXPECT} is one of {', '.join(words)}, not {value!r}")
    return Verdict(value)


def _options(path: Path, table: object) -> dict[str, str]:
    """Settings of the platform as ``--set`` would take them; what they may be the platform says."""
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {_TABLE} is a table of settings, not {table!r}")
    for name, value in table.items():
        if not isinstance(value, str | int | bool):
            raise UsageError(f"{path}: {_TABLE}.{name} is a text, a number, true or false, not {value!r}")
    return {name: _as_set(value) for name, value in table.items()}


def _as_set(value: str | bool | int) -> str:  # noqa: FBT001 - what TOML has
    return str(value).lower() if isinstance(value, bool) else str(value)


def names_of(guests: Iterable[GuestFile]) -> list[str]:
    """Names of the runs; those that several have get their folder in front."""
    given = list(guests)
    plain = [guest.name for guest in given]
    return [str(guest.image.with_name(guest.name)) if plain.count(guest.name) > 1 else guest.name for guest in given]
