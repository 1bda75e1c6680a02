"""``pvops record``, with a QEMU that is none and with the real one; and ``pvops patch --against`` what it wrote."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from pvops_core import cli
from pvops_core.images import load_image
from pvops_core.ops import LAYOUTS
from pvops_core.patching.bootrecords import read_record
from pvops_core.patching.kernel import plan_kernel, read_kernel
from pvops_core.recording.qemu import PACKAGE, PROGRAM
from pvops_core.testing.kernels import SmallKernel
from pvops_core.testing.qemu import FUNCTIONS, Story, install, story

LAYOUT = LAYOUTS["6.12-64"]
FILLERS = tuple(f"filler{number}" for number in range(32))
KERNEL = SmallKernel(LAYOUT, range(len(LAYOUT.slots)), functions=(*FUNCTIONS, *FILLERS), typed=True)
OWN = {"run", "package", "license", "stages", "log", "qemu", "boot", "boot_cpu_data_head", "special"}
"""What a record says of the boot, or, as the measured loops_per_jiffy, that no two boots agree on."""
INDICES = {"secs", "sec", "alt", "alt_kinds", "alternatives", "ops", "tables"}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel that a QEMU boots which patches its sites as bare metal does."""
    path = tmp_path / "vmlinux"
    path.write_bytes(KERNEL.builder().build())
    plan = plan_kernel(read_kernel(load_image(path)), [], 1)
    finals = {planned.site.address: planned.final.hex() for planned in plan.sites}
    install(tmp_path, story(KERNEL, {"apply_alternatives returned": finals}))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main([*map(str, arguments)])
    return code, *capsys.readouterr()


def test_a_record_says_that_the_plan_is_right(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, report = tmp_path / "boot.json.gz", tmp_path / "report.json"
    code, out, _ = run(capsys, "record", small, "-o", record, "--initrd", small, "--cpus", 2, "--json", report)
    assert code == 0
    assert "alternative_instructions returned, run_init_process" in out
    assert f"boot.json.gz: {len(LAYOUT.slots)} sites; {len(LAYOUT.slots)} places with alternatives" in out
    boot = json.loads(report.read_text())["boot"]
    assert (boot["platform"], boot["cpus"], boot["cpu"]) == ("native", 2, "qemu64")
    assert read_record(record, load_image(small)).run == "boot"
    code, out, _ = run(capsys, "patch", small, "--backend", "native", "--against", record)
    assert code == 0
    assert out.endswith(f"against {record}: no difference\n")


def test_a_record_of_another_boot_is_a_difference(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, report = tmp_path / "boot.json", tmp_path / "report.json"
    assert run(capsys, "record", small, "-o", record)[0] == 0
    document = json.loads(record.read_text())
    document["ops"][0][1] = f"{KERNEL.addresses['filler0']:#x}"
    document["ops"].append(["cpu.new", "0x0", None])
    document["final"] = "cc" * 6 + document["final"][12:]
    document["alternatives"]["final"] = document["alternatives"]["final"][:-12] + "cc" * 6
    document["alternatives"]["dva"][-1] += 0x100
    record.write_text(json.dumps(document))
    command = ("patch", small, "--backend", "native", "--alternatives", "--cpu", "qemu64", "--against", record)
    code, out, _ = run(capsys, *command, "--json", report)
    assert code == 5
    assert f"against {record}: 2 slots, 1 sites, 2 other places differ" in out
    assert "cpu.io_delay: native_io_delay, recorded filler0" in out
    against = json.loads(report.read_text())["against"]
    assert [slot["op"] for slot in against["table"]] == ["cpu.io_delay", f"type {len(LAYOUT.slots)}"]
    assert against["table"][1]["predicted"] is None
    (site,) = against["sites"]
    assert (site["op"], site["step"], site["recorded"]) == ("cpu.io_delay", "final", "cc" * 6)
    missing, strange = against["alternatives"]
    assert (missing["recorded"], strange["predicted"]) == (None, None)
    document["dva"][-1] += 0x100
    record.write_text(json.dumps(document))
    assert run(capsys, *command, "--json", report)[0] == 5
    assert json.loads(report.read_text())["against"]["sites"][-1]["op"] is None


def test_what_ends_too_early_is_a_crash(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(tmp_path, Story(console="Kernel panic"))
    code, _, err = run(capsys, "record", small, "-o", tmp_path / "boot.json")
    assert (code, err) == (6, "pvops: before start_kernel: the machine ended ('W00'); its last words: Kernel panic\n")
    assert not (tmp_path / "boot.json").exists()


def test_what_hangs_is_given_up(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(tmp_path, Story(hangs=True))
    code, _, err = run(capsys, "record", small, "-o", tmp_path / "boot.json", "--max-seconds", 1)
    assert (code, err) == (6, "pvops: before start_kernel: nothing happened in 1 seconds; it had said nothing\n")


def test_without_qemu_its_package_is_named(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    code, _, err = run(capsys, "record", small, "-o", tmp_path / "boot.json")
    assert code == 2
    assert f"package {PACKAGE}" in err


def test_modules_have_no_record(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("patch", small, "--backend", "native", "--kernel", small, "--against", tmp_path / "boot.json")
    assert run(capsys, *command)[0] == 2


def meaning(document: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its indices resolved, and without what it says of the boot."""
    sections, kinds = document["secs"], document["alt_kinds"]
    found = {name: value for name, value in document.items() if name not in OWN | INDICES}
    found["sections"] = [sections[int(digit)] for digit in document["sec"]]
    found["others"] = [kinds[number] if number >= 0 else None for number in document["alt"]]
    found["table"] = [(op, int(target or "0", 16)) for op, target, _symbol in document["ops"]]
    groups = document.get("alternatives")
    if groups is not None:
        found["groups"] = {name: value for name, value in groups.items() if name not in {"sec", "kind", "kinds"}}
        found["groups"]["sections"] = [sections[int(digit)] for digit in groups["sec"]]
        found["groups"]["kinds"] = [groups["kinds"][number] for number in groups["kind"]]
    return found


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "record"),
    [
        ("vmlinuz-6.1.0-56-cloud-amd64", "native-cloud"),
        ("vmlinuz-6.12.117+deb12-cloud-amd64", "c612-native"),
        ("vmlinuz-7.2.13+deb14-cloud-amd64", "c72-native"),
    ],
)
def test_a_real_boot_is_recorded_as_it_was_before(
    kernel: str,
    record: str,
    kernel_path: Callable[[str], Path],
    oracle: Callable[[str], Mapping[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"needs {PROGRAM} (Debian package {PACKAGE})")
    path, made = kernel_path(kernel), tmp_path / "boot.json.gz"
    code, _, err = run(capsys, "record", path, "--initrd", path.parent / "initramfs.cpio.gz", "-o", made)
    assert (code, err) == (0, "")
    with gzip.open(made, "rt") as stream:
        written = json.load(stream)
    found, expected = meaning(written), meaning(oracle(record))
    found = {name: value for name, value in found.items() if name in expected}
    assert found == expected
    assert oracle(record)["special"].items() <= written["special"].items()
    image = load_image(path)
    if "boot_cpu_data_head" in oracle(record):
        recorded = bytes.fromhex(oracle(record)["boot_cpu_data_head"])
        boot = read_record(made, image)
        assert boot.features(image) == attrs.evolve(boot, boot_cpu_data=recorded).features(image)
    code, out, _ = run(capsys, "patch", path, "--backend", "native", "--alternatives", "--against", made)
    assert (code, out.endswith("no difference\n")) == (0, True)


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["vmlinuz-6.12.117+deb12-cloud-amd64", "vmlinuz-7.2.13+deb14-cloud-amd64"])
def test_call_thunks_are_as_in_a_real_boot(
    kernel: str, kernel_path: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """6.12 leads calls through thunks after alternatives, 7.2 before."""
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"needs {PROGRAM} (Debian package {PACKAGE})")
    path, made, report = kernel_path(kernel), tmp_path / "boot.json.gz", tmp_path / "report.json"
    words = ("--cpu", "Skylake-Client", "--cmdline", "retbleed=stuff")
    assert run(capsys, "record", path, *words, "-o", made)[0] == 0
    command = ("patch", path, "--backend", "native", "--alternatives", "--against", made, "--json", report)
    code, out, _ = run(capsys, *command)
    assert (code, out.endswith("no difference\n")) == (0, True)
    alternatives = json.loads(report.read_text())["alternatives"]
    assert alternatives["summary"]["call_thunks"] > 100_000
    assert alternatives["summary"]["left_out"] == []
    changed_once_more = sum(group["end"] != group["final"] for group in alternatives["groups"])
    assert (changed_once_more > 1000) == ("6.12" in kernel)
