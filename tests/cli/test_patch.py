from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pvops_core import cli
from pvops_core.images import load_image
from pvops_core.ops import LAYOUTS
from pvops_core.patching.altinstructions.alternatives import FEATURES
from pvops_core.patching.altinstructions.cpus import MODELS
from pvops_core.testing.images import make_bzimage
from pvops_core.testing.kernels import Alternative, SmallKernel
from pvops_core.testing.modules import SmallModule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LAYOUT = LAYOUTS["6.1-64"]
PLUGIN = """
from pvops_core.backends import API, Backend

class Kernel:
    def slots(self, kernel, layout, cpus):
        if cpus == 1:
            return {"cpu.io_delay": None}
        return {"cpu.io_delay": "quiet_io_delay"}

    def features(self, kernel, cpus):
        return frozenset()

backend = Backend(name="quiet", api=API, base="native", kernel=Kernel())
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinuz"
    kernel = SmallKernel(LAYOUT, types=range(len(LAYOUT.slots)), functions=["quiet_io_delay"])
    path.write_bytes(make_bzimage(kernel.builder().build(), "xz", release="6.1.77"))
    return path


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "quiet.py"
    path.write_text(PLUGIN)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["patch", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_json_and_output(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, report = tmp_path / "vmlinux", tmp_path / "report.json"
    code, out, _ = run(capsys, small, "--backend", "native", "--output", output, "--json", report)
    assert code == 0
    assert f"paravirt: {len(LAYOUT.slots)} sites" in out
    result = json.loads(report.read_text())
    image, patched = load_image(small), load_image(output)
    assert result["schema"] == "pvops.patch/1"
    assert result["image"] == {"path": str(small), "sha256": image.sha256, "machine": "x86_64", "release": "6.1.77"}
    assert (result["backend"], result["cpus"]) == ("native", 1)
    assert {tuple(site) for site in result["sites"]} == {
        ("address", "section", "op", "type", "length", "original", "paravirt", "final")
    }
    for site in result["sites"]:
        address = int(site["address"], 16)
        assert image.read(address, 6).hex() == site["original"]
        assert patched.read(address, 6).hex() == site["final"]
    assert sum(result["summary"]["final"].values()) == result["summary"]["sites"] == len(result["sites"])
    assert list(patched.sections) == list(image.sections)


@pytest.mark.parametrize(("cpus", "kind"), [(1, "bug"), (2, "call")])
def test_third_party_backend_from_a_file(
    small: Path, plugin: Path, cpus: int, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, small, "--backend", "quiet", "--plugin", plugin, "--cpus", cpus, "--json", "-")
    assert code == 0
    assert json.loads(out)["summary"]["ops"]["cpu.io_delay"]["paravirt"] == kind


def test_unknown_backend_lists_the_known(small: Path, plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, small, "--backend", "vmi", "--plugin", plugin)
    assert code == 2
    assert "no backend 'vmi'" in err
    assert "native, quiet" in err


def test_broken_backend_is_a_fault(small: Path, plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin.write_text("raise SystemExit('gone')")
    code, _, err = run(capsys, small, "--backend", "quiet", "--plugin", plugin)
    assert code == 4
    assert "quiet.py" in err
    assert "SystemExit: gone" in err


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise KeyError('lost')", "its kernel's slots raised KeyError: 'lost'"),
        ("raise SystemExit(3)", "slots raised SystemExit: 3"),
        ("return ['cpu.io_delay']", "slots gave a list, not a mapping"),
        ("return {'cpu.io_delay': 1.5}", "gave 1.5 for 'cpu.io_delay'"),
        ("return {'cpu.io_delay': -1}", "gave -1 for 'cpu.io_delay'"),
        ("return {'cpu.io_delay': 1 << 64}", "for 'cpu.io_delay': no symbol, address or None"),
    ],
)
def test_a_fill_that_fails_is_the_plugins_fault(
    small: Path, plugin: Path, body: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin.write_text(PLUGIN.replace("if cpus == 1:", f"{body}\n        if cpus == 1:"))
    code, _, err = run(capsys, small, "--backend", "quiet", "--plugin", plugin)
    assert code == 4
    assert "quiet.py" in err
    assert says in err


def test_what_a_backend_forces_on_the_builtin_guest_a_real_kernel_does_not(
    tmp_path: Path, small: Path, plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin.write_text(PLUGIN.replace("kernel=Kernel()", "kernel=Kernel(), forces=frozenset({'XENPV'})"))
    told = plugin.read_text()
    report = tmp_path / "report.json"
    assert run(capsys, small, "--backend", "quiet", "--plugin", plugin, "--json", report)[0] == 0
    forced = json.loads(report.read_text())
    plugin.write_text(told.replace(", forces=frozenset({'XENPV'})", ""))
    assert run(capsys, small, "--backend", "quiet", "--plugin", plugin, "--json", report)[0] == 0
    assert forced["summary"] == json.loads(report.read_text())["summary"]
    assert "XENPV" not in forced["summary"]["features"]


def test_a_fill_may_refuse_the_kernel(small: Path, plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = "from pvops_core.errors import ImageError; raise ImageError('not for us', kernel.path)"
    plugin.write_text(PLUGIN.replace("if cpus == 1:", f"{body}\n        if cpus == 1:"))
    assert run(capsys, small, "--backend", "quiet", "--plugin", plugin)[::2] == (2, f"pvops: {small}: not for us\n")


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--cpus", "0"], "--cpus"),
        (["--cpus", "many"], "--cpus"),
        (["--output", "KERNEL"], "is the kernel itself"),
        (["--output", "/absent/vmlinux"], "cannot be written"),
    ],
)
def test_bad_arguments(small: Path, extra: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = small.read_bytes()
    options = [str(small) if word == "KERNEL" else word for word in extra]
    code, _, err = run(capsys, small, "--backend", "native", *options)
    assert code == 2
    assert says in err
    assert small.read_bytes() == before


def test_backend_is_required(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, small)
    assert (code, err) == (2, "pvops: Missing option '--backend'.\n")


def test_alternatives_are_listed_and_put_into_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = LAYOUTS["7.2-64"]
    entries = [Alternative(28, FEATURES["XENPV"], inverted=True, code=b"\x9c\x58")]
    kernel = SmallKernel(layout, types=range(78), typed=True, alternatives=entries)
    path, output = tmp_path / "vmlinux", tmp_path / "patched"
    path.write_bytes(kernel.builder().build())
    code, out, _ = run(
        capsys, path, "--backend", "native", "--alternatives", "--output", output, "--json", tmp_path / "json"
    )
    assert code == 0
    assert out.splitlines()[-1] == "alternatives: 78 groups, after 0 returns and 0 indirect branches"
    result = json.loads((tmp_path / "json").read_text())
    assert {site["paravirt"] for site in result["sites"]} == {result["summary"]["paravirt"]} == {None}
    found, patched = result["alternatives"], load_image(output)
    assert found["cpu"] is None
    assert found["summary"]["features"]["xenpv"] == {"there": False, "groups": 1, "replaced": 1}
    assert found["summary"]["features"]["always"] == {"there": True, "groups": 78, "replaced": 77}
    group = found["groups"][28]
    assert (group["kind"], group["chosen"], group["final"]) == ("op", 1, "9c580f1f4000")
    assert [entry["direct"] for entry in group["entries"]] == [True, False]
    for each, site in zip(found["groups"], result["sites"], strict=True):
        assert (each["address"], each["final"]) == (site["address"], site["final"])
        assert patched.read(int(each["address"], 16), each["length"]).hex() == each["final"]


def test_a_cpu_is_of_use_to_alternatives_only(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, small, "--backend", "native", "--cpu", "qemu64")
    assert code == 2
    assert "needs --alternatives" in err
    code, _, err = run(capsys, small, "--backend", "native", "--alternatives", "--cpu", "qemu46")
    assert code == 2
    assert f"no file or CPU 'qemu46'; there are {', '.join(sorted(MODELS))} (did you mean qemu64?)" in err
    assert run(capsys, small, "--backend", "native", "--alternatives", "--cpu", "qemu64")[0] == 0


@pytest.fixture
def module(tmp_path: Path) -> tuple[Path, Path]:
    """A module, and its kernel."""
    layout = LAYOUTS["6.12-64"]
    path, kernel = tmp_path / "small.ko.gz", tmp_path / "vmlinuz-6.12"
    path.write_bytes(gzip.compress(SmallModule(layout, [30, 31, 77], release="6.12.0").build()))
    small = SmallKernel(layout, types=[0], typed=True, functions=["quiet_io_delay"])
    kernel.write_bytes(make_bzimage(small.builder().build(), release="6.12.0"))
    return path, kernel


def test_a_module_is_patched_as_its_kernel_would(module: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    path, kernel = module
    code, out, _ = run(capsys, path, "--kernel", kernel, "--backend", "native", "--alternatives", "--json", "-")
    assert code == 0
    result = json.loads(out)
    assert result["image"]["path"] == str(path)
    assert [site["op"] for site in result["sites"]] == ["irq.save_fl", "irq.irq_disable", "mmu.set_fixmap"]
    assert result["sites"][0]["address"] == "0xffffffffc0000000"
    assert result["summary"]["final"] == {"call": 3, "nop": 0, "bug": 0, "inlined": 0}
    assert len(result["alternatives"]["groups"]) == 3
    assert cli.main(["sites", str(path), "--kernel", str(kernel)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["all", "3"]


def test_a_module_needs_its_kernel_and_only_a_module_does(
    module: tuple[Path, Path], small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, kernel = module
    output = ["--output", tmp_path / "out"]
    for words, says in (
        ([path], "is a module: say with --kernel which kernel it is loaded into"),
        ([small, "--kernel", kernel], "is no module"),
        ([path, "--kernel", kernel, *output], "--output is for kernels"),
        ([path, "--kernel", small], "is for x86_64 6.12.0, and"),
    ):
        code, _, err = run(capsys, *words, "--backend", "native")
        assert (code, err.count("\n")) == (2, 1)
        assert says in err
    assert not (tmp_path / "out").exists()


@pytest.mark.kernel
def test_a_record_says_how_many_of_each_kind_are_right(
    kernel_path: Callable[[str], Path],
    oracle: Callable[[str], Mapping[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = tmp_path / "record.json"
    record.write_text(json.dumps(oracle("c72-native")))
    path = kernel_path("vmlinuz-7.2.13+deb14-cloud-amd64")
    code, out, _ = run(
        capsys, path, "--backend", "native", "--alternatives", "--cpu", record, "--json", tmp_path / "json"
    )
    assert code == 0
    assert "right_bytes" in out
    summary = json.loads((tmp_path / "json").read_text())["alternatives"]["summary"]
    assert set(summary["kinds"]) == {"op", "call", "jump", "nop", "retpoline", "code"}
    assert sum(kind["recorded"] for kind in summary["kinds"].values()) == 6186
    assert all(kind["right_bytes"] == kind["bytes"] for kind in summary["kinds"].values())
    assert summary["left_out"] == []


@pytest.mark.kernel
def test_real_kernel(kernel_path: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "vmlinux"
    path = kernel_path("vmlinuz-6.1.0-56-cloud-amd64")
    code, out, _ = run(capsys, path, "--backend", "native", "--output", output, "--json", "-")
    assert code == 0
    result = json.loads(out)
    assert result["summary"]["final"] == {"call": 1336, "nop": 82, "bug": 0, "inlined": 2261}
    patched = load_image(output)
    assert all(patched.read(int(site["address"], 16), 6).hex() == site["final"] for site in result["sites"])


@pytest.mark.kernel
def test_kernel_without_xen_pv(kernel_path: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, kernel_path("vmlinuz-6.1.0-50-686-pae"), "--backend", "xen")
    assert code == 2
    assert "built without XEN_PV" in err
