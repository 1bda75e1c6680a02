"""GRUB as a domain of the Xen model: another client than Linux, with page tables, grants and rings of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvops_core.cli import main

IMAGES = ("grub-x86_64-xen.bin", "grub-i386-xen.bin")


def boot(image: Path, folder: Path, *options: str) -> dict[str, Any]:
    target = folder / "grub.json"
    main(["boot", str(image), "--backend", "xen", "--max-seconds", "120", "--json", str(target), *options])
    result: dict[str, Any] = json.loads(target.read_text())
    return result


@pytest.mark.kernel
@pytest.mark.parametrize("name", IMAGES)
def test_it_reaches_its_prompt(grub_path: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    found = boot(grub_path(name), tmp_path, "--until", "grub>")
    assert found["outcome"] == "until", found["reason"]
    assert "GNU GRUB" in found["console"]


@pytest.mark.kernel
@pytest.mark.parametrize("name", IMAGES)
def test_it_does_what_is_typed(grub_path: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    typed = tmp_path / "typed"
    typed.write_bytes(b"ls\recho one two\rhalt\r" + b"# what nobody reads any more\r" * 100)
    first, second = (boot(grub_path(name), tmp_path, "--input", str(typed)) for _ in range(2))
    assert first["outcome"] == "poweroff", first["reason"]
    assert "(memdisk)" in first["console"]
    assert "one two\r\n" in first["console"] or "one two\n" in first["console"]
    del first["wall_s"], second["wall_s"]
    for each in (first, second):
        for point in each.get("points", {}).values():
            point.pop("wall_s", None)
    assert first == second
