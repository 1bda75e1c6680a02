from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pvops_core import cli
from pvops_core.cli.common import printable
from pvops_core.ops import LAYOUTS
from pvops_core.testing.images import ElfBuilder
from pvops_core.testing.kernels import SmallKernel

if TYPE_CHECKING:
    from collections.abc import Callable

LAYOUT = LAYOUTS["6.1-64"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinux"
    path.write_bytes(SmallKernel(LAYOUT, types=[30, 31, 30, *range(84)]).builder().build())
    return path


def test_table(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sites", str(small)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["section", "op", "type", "length", "address", "symbol"]
    assert lines[1].split()[:4] == [".init.text", "irq.save_fl", "30", "6"]
    assert lines[1 + 87 + 2].split() == ["irq.save_fl", "3"]
    assert lines[-1].split() == ["all", "87"]


def test_json_on_standard_output_is_all_that_is_there(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sites", str(small), "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == "pvops.sites/1"
    assert result["layout"] == "6.1-64"
    assert result["image"]["path"] == str(small)
    assert result["summary"]["sites"] == len(result["sites"]) == 87
    assert result["summary"]["ops"]["irq.save_fl"] == 3
    assert result["summary"]["sections"] == {".init.text": 87}
    assert int(result["sites"][1]["address"], 16) - int(result["sites"][0]["address"], 16) == 8


class Strange(SmallKernel):
    """A kernel whose table nobody knows."""

    @property
    def linked(self) -> list[str]:
        return [f"strange_{number}" for number in range(len(self.layout.slots))]


def test_a_table_that_is_not_known_is_listed_by_slot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "strange"
    path.write_bytes(Strange(LAYOUT, types=[30, 31, 30]).builder().build())
    assert cli.main(["sites", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split()[:4] == [".init.text", "pv_ops+0xf0", "30", "6"]
    assert "pv_ops+0xf0  2" in out
    assert err == f"pvops: {path} has a table of ops that fits no known layout\n"
    assert cli.main(["sites", str(path), "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["layout"] is result["sites"][0]["op"] is None
    assert result["sites"][0]["slot"] == "pv_ops+0xf0"
    assert result["summary"]["ops"] == {"pv_ops+0xf0": 2, "pv_ops+0xf8": 1}
    assert cli.main(["patch", str(path), "--backend", "native"]) == 2
    assert "fits none of the layouts" in capsys.readouterr().err


def test_kernel_without_sites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = ElfBuilder()
    builder.text(".text", bytes(16))
    path = tmp_path / "plain"
    path.write_bytes(builder.build())
    assert cli.main(["sites", str(path)]) == 3
    assert "annotates no call of an op" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "Usage: pvops"),
        (["frobnicate"], 2, "no verb 'frobnicate'; there are"),
        (["sites"], 2, "Missing argument 'FILE'"),
        (["sites", "/absent"], 2, "/absent: cannot be read: No such file"),
        (["sites", "/"], 2, "is not a regular file"),
        (["sites", __file__], 2, "neither a bzImage nor an ELF image"),
        (["sites", __file__, "--frob"], 2, "--frob"),
        (["sites", "a\nb"], 2, r"a\nb: cannot be read"),
    ],
)
def test_errors_are_one_line_and_a_code(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == code
    out, err = capsys.readouterr()
    assert not out
    assert says in err
    assert not arguments or (err.count("\n") == 1 and err.startswith("pvops: "))


@pytest.mark.parametrize("verb", ["study", "cache", "livepatch"])
def test_a_verb_that_has_verbs_shows_its_usage_without_one(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"Usage: pvops {verb} [OPTIONS] COMMAND [ARGS]...\n")
    assert "\\n" not in err


def test_unwritable_json(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sites", str(small), "--json", "/absent/file"]) == 2
    assert "/absent/file: cannot be written" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pvops 0.")
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_list_of_verbs_says_what_their_help_says(verb: str) -> None:
    assert cli.load_verb(verb).help.splitlines()[0] == cli.VERBS[verb].summary


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_and_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    under = getattr(cli.load_verb(verb), "commands", {})
    for words in [[verb, name] for name in under] or [[verb]]:
        assert cli.main([*words, "--help"]) == 0
        assert "--json" in capsys.readouterr().out


def test_printable() -> None:
    assert printable("plain ünï") == "plain ünï"
    assert printable("a\nb\x1b[31m\r") == r"a\nb\x1b[31m\r"


def test_starting_up_imports_nothing_heavy() -> None:
    script = "import sys, pvops_core.cli as c; c.main(['--version']); print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert not loaded & {"numpy", "unicorn", "capstone", "numba", "elftools", "rich.console", "pvops_core.images"}


def test_a_reader_that_stops_reading_is_no_error(small: Path) -> None:
    script = "import sys, pvops_core.cli as c; sys.exit(c.main(sys.argv[1:]))"
    command = f'"{sys.executable}" -c "{script}" sites "{small}" | head -n 1'
    run = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout.split()[0] == "section"
    assert not run.stderr


@pytest.mark.kernel
def test_real_kernel(kernel_path: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sites", str(kernel_path("vmlinuz-6.1.0-56-amd64")), "--json", "-"]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["sites"] == 3848
    assert list(summary["ops"].items())[:4] == [
        ("irq.save_fl", 458),
        ("irq.irq_enable", 452),
        ("irq.irq_disable", 409),
        ("cpu.write_msr", 381),
    ]
