"""Memory that is too little, or not to be had: the same of ``run``, ``boot`` and ``compare``."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pvops_core.testing.images import ElfBuilder

VERBS = ["run", "boot", "compare", "compare --kernel"]


@pytest.fixture
def words(tmp_path: Path) -> Callable[[str], list[str]]:
    """The words of a verb, with a kernel that halts where it takes one."""

    def of(verb: str) -> list[str]:
        builder = ElfBuilder(64, 0x1000000)
        builder.symbol("start", builder.text(".text", bytes.fromhex("fa f4")))
        kernel = tmp_path / "vmlinux"
        kernel.write_bytes(builder.build())
        given = {"boot": [str(kernel)], "compare --kernel": [str(kernel)]}.get(verb, [])
        compares = ["--backends", "native"] + ["--layouts", "6.1-64"] * (verb == "compare")
        return [*verb.split(), *given, *(compares if "compare" in verb else [])]

    return of


def run(*words: str, room: int | None = None, files: int | None = None) -> tuple[int, str]:
    """Exit code and all output of a command, whose processes may have so much address space, or so many open files."""
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (room, room)) if room else None
    if files:
        limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (files, files))
    command = [sys.executable, "-m", "pvops_core", *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=100, check=False, preexec_fn=limit)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_a_guest_that_does_not_fit(verb: str, words: Callable[[str], list[str]]) -> None:
    code, out = run(*words(verb), "--memory", "1")
    assert code == (3 if "compare" in verb else 2)
    assert "1 MiB of memory" in out
    assert "Traceback" not in out


@pytest.mark.parametrize("verb", VERBS)
def test_memory_that_no_host_has(verb: str, words: Callable[[str], list[str]]) -> None:
    code, out = run(*words(verb), "--memory", str(1 << 20))
    assert code == 4
    assert "memory: the host refused 1048576 MiB for the guest's memory: ask for less" in " ".join(out.split())


@pytest.mark.parametrize("megabytes", [640, 250, 190, 100, 60])
@pytest.mark.parametrize("verb", VERBS[:3])
def test_an_address_space_that_is_too_small(verb: str, megabytes: int, words: Callable[[str], list[str]]) -> None:
    code, out = run(*words(verb), room=megabytes << 20)
    assert code == 4
    assert "the host refused" in out
    assert "see `ulimit -v`" in " ".join(out.split())


@pytest.mark.parametrize("files", [5, 6, 8, 9])
@pytest.mark.parametrize("verb", ["run", "compare"])
def test_too_few_open_files(verb: str, files: int, words: Callable[[str], list[str]]) -> None:
    code, out = run(*words(verb), files=files)
    assert code == 4
    assert "Too many open files" in out or "see `ulimit -n`" in out
    assert "Traceback" not in out


@pytest.mark.parametrize("verb", VERBS)
def test_memory_that_no_machine_has(verb: str, words: Callable[[str], list[str]]) -> None:
    for memory in ("0", "-1", str((1 << 20) + 1)):
        code, out = run(*words(verb), "--memory", memory)
        assert code == 2
        assert "--memory" in out


def test_the_outcome_is_one_of_memory(tmp_path: Path, words: Callable[[str], list[str]]) -> None:
    file = tmp_path / "out.json"
    code, _ = run(*words("run"), "--json", str(file), room=720 << 20)
    document = json.loads(file.read_bytes())
    assert (code, document["outcome"]) == (4, "memory")
    assert document["reason"].startswith("the host refused 288 MiB for an engine")
