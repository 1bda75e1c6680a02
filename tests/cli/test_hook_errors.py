"""What a user sees of a hook that fails, whichever way, in ``run``, ``compare`` and ``boot --hook``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pvops_core.cli import main
from tests import misdeeds

FILE = misdeeds.__file__
LAYOUT = ("--layout", "6.1-64")


def ran(capsys: pytest.CaptureFixture[str], name: str, *options: str) -> tuple[int, str]:
    code = main(["run", *LAYOUT, "--backend", name, "--plugin", f"{FILE}:{name}", *options])
    return code, capsys.readouterr().out


@pytest.mark.parametrize("name", misdeeds.ERRORS)
def test_an_error_names_plugin_op_and_place_with_the_authors_frames_alone(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deed, said = misdeeds.ERRORS[name]
    code, out = ran(capsys, name)
    assert code == 4
    (line,) = (line for line in out.splitlines() if line.startswith("outcome "))
    place = f"{FILE}:{name}, entry point misdeeds:{name}, hook load_tr_desc, vcpu 0, rip 0x"
    assert place in line
    assert "<pvops_gates+0x" in line
    assert "called from 0x" in line
    assert "<cpu_init+0x" in line
    assert line.endswith(f"{name}.load_tr_desc raised {said}")
    assert f"in {deed.__name__}\n" in out
    assert "in load_tr_desc\n" in out
    assert "pvops_core/" not in out
    assert "unicorn" not in out


def test_an_error_of_making_the_ops_names_the_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = ran(capsys, "unmade")
    assert code == 4
    said = f"{FILE}:unmade, entry point misdeeds:unmade: making Unmade raised LookupError: nothing to begin with"
    assert said in out
    assert "in __init__\n" in out
    assert "pvops_core/" not in out


@pytest.mark.parametrize("verb", ["compare", "boot"])
def test_whatever_making_the_ops_raises_is_the_plugins(
    verb: str, kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All kinds in one comparison; under a kernel, one that ends processes and cannot say so."""
    names = list(misdeeds.ERRORS) if verb == "compare" else ["speechless_twice"]
    words = {
        "compare": ["compare", "--layouts", "6.1-64", "--backends"],
        "boot": ["boot", str(kernel), "--memory", "32", "--ops", "write_cr3", "--backend"],
    }[verb]
    plugins = [word for name in names for word in ("--plugin", f"{FILE}:unmade_{name}")]
    assert main([*words, ",".join(f"unmade_{name}" for name in names), *plugins]) == 4
    out = " ".join(capsys.readouterr().out.split())
    for name in names:
        own = f"unmade_{name}"
        said = f"making _unmade.<locals>.Ops raised {misdeeds.ERRORS[name][1]}"
        assert f"{FILE}:{own}, entry point misdeeds:{own}: {said}" in out
    assert out.count("in __init__ ") == len(names)
    assert "pvops_core/" not in out


def test_an_access_outside_the_machine_names_the_op(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = ran(capsys, "outside_")
    assert code == 6
    assert "load_tr_desc, physical 0x10000000000+0x8: outside memory" in out
    assert "cpu.machine.memory.read(1 << 40, 8)" in out


def test_a_comparison_tells_of_each_backends_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = list(misdeeds.ERRORS)
    plugins = [word for name in names for word in ("--plugin", f"{FILE}:{name}")]
    target = tmp_path / "compare.json"
    options = ["--backends", ",".join(["native", *names]), "--layouts", "6.1-64", "--json", str(target)]
    assert main(["compare", *options, *plugins]) == 4
    out = " ".join(capsys.readouterr().out.split())
    for name, (deed, said) in misdeeds.ERRORS.items():
        assert f"{name}.load_tr_desc raised {said}" in out
        assert f"in {deed.__name__}" in out
    assert "pvops_core/" not in out
    assert json.loads(target.read_text())["schema"] == "pvops.compare/1"


@pytest.mark.parametrize("name", misdeeds.ERRORS)
def test_an_error_of_a_kernels_hook_names_file_op_and_place(
    name: str, kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deed, said = misdeeds.ERRORS[name]
    assert main(["boot", str(kernel), "--memory", "32", "--hook", f"write_cr3={FILE}:hook_{name}"]) == 4
    out = capsys.readouterr().out
    assert f"{FILE}:hook_{name}" in out
    assert "hook write_cr3, vcpu 0, rip 0x" in out
    assert f"raised {said}" in out
    assert f"in {deed.__name__}\n" in out
    assert "pvops_core/" not in out


def served(name: str, kernel: Path) -> list[str]:
    """The words for a boot of the kernel whose op a backend's hook serves."""
    own = ["--backend", f"kernel_{name}", "--plugin", f"{FILE}:kernel_{name}", "--ops", "write_cr3"]
    return ["boot", str(kernel), "--memory", "32", *own]


@pytest.mark.parametrize("name", misdeeds.ERRORS)
def test_an_error_of_a_backends_hook_under_a_kernel_names_plugin_op_and_place(
    name: str, kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deed, said = misdeeds.ERRORS[name]
    assert main(served(name, kernel)) == 4
    out = capsys.readouterr().out
    assert f"{FILE}:kernel_{name}, entry point misdeeds:kernel_{name}, hook write_cr3, vcpu 0, rip 0x" in out
    assert f"kernel_{name}.write_cr3 raised {said}" in out
    assert f"in {deed.__name__}\n" in out
    assert "pvops_core/" not in out


def words_of(verb: str, deed: str, kernel: Path) -> list[str]:
    """The words for a hook's deed in each of the ways in which a command calls hooks."""
    own = [f"{deed}_", "--plugin", f"{FILE}:{deed}_"]
    return {
        "run": ["run", *LAYOUT, "--backend", *own],
        "compare": ["compare", "--layouts", "6.1-64", "--backends", *own],
        "boot": served(deed, kernel),
        "hook": ["boot", str(kernel), "--memory", "32", "--hook", f"write_cr3={FILE}:hook_{deed}"],
    }[verb]


EVERY_WAY = pytest.mark.parametrize("verb", ["run", "compare", "boot", "hook"])


@EVERY_WAY
@pytest.mark.parametrize("deed", misdeeds.ENDS)
def test_a_hook_that_ends_the_process_is_told_of(
    deed: str, verb: str, kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of(verb, deed, kernel)) == 4
    name, op = {"hook": (f"hook_{deed}", "write_cr3"), "boot": (f"kernel_{deed}", "write_cr3")}.get(
        verb, (f"{deed}_", "load_tr_desc")
    )
    said = f"died: the worker process {misdeeds.ENDS[deed][1]} while running the guest, in "
    out = " ".join(capsys.readouterr().out.split())
    assert said in out
    assert re.match(rf"\S*{name}\S* \({re.escape(FILE)}:{name}, .*hook {op}\), vcpu 0", out.partition(said)[2])


@pytest.mark.parametrize("deed", misdeeds.ENDS)
def test_one_that_ends_the_process_while_its_ops_are_made_is_told_of(
    deed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = ran(capsys, f"unmade_{deed}")
    assert code == 4
    said = (
        f"{misdeeds.ENDS[deed][1]} while building the machine, in making _unmade.<locals>.Ops ({FILE}:unmade_{deed}, "
    )
    assert said in " ".join(out.split())


GOOD = """
from pvops_core.backends import API, Backend
backend = Backend(name="rude", api=API, description="rude", base="native")
"""


@pytest.mark.parametrize("deed", ["sys.stdout.close()", "sys.stderr = None", "sys.stderr.close()", "os.close(2)"])
def test_a_plugin_that_takes_the_streams_away_costs_a_run_nothing(deed: str, tmp_path: Path) -> None:
    plugin = tmp_path / "rude.py"
    plugin.write_text(f"import os, sys\n{deed}\n{GOOD}")
    words = ["run", *LAYOUT, "--backend", "rude", "--plugin", str(plugin), "--json", str(tmp_path / "json")]
    command = [sys.executable, "-c", "import sys; from pvops_core.cli import main; sys.exit(main())", *words]
    subprocess.run(command, check=False, capture_output=True)
    assert json.loads((tmp_path / "json").read_text())["outcome"] == "poweroff"


@EVERY_WAY
def test_a_fault_in_a_hook_is_shown_where_the_guest_dies_of_it(
    verb: str, kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of(verb, "fault", kernel)) == 6
    out = " ".join(capsys.readouterr().out.split())
    assert " ran into this at " in out
    assert "PageFault: page fault at 0x777700001234" in out
    assert "cpu.u64(NOWHERE)" in out
    assert "pvops_core/" not in out
