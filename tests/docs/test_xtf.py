"""What docs/tools/xtf.py makes of XTF's files and of results."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "running-xtf.md"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("xtf", ROOT / "docs" / "tools" / "xtf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_a_configuration_says_is_kept(tool: ModuleType) -> None:
    plain = 'name="test-pv64-a"\nloader="generic"\nvcpus=1 # or more\nmemory=128\n'
    assert tool.settings(plain) == ""
    text = tool.settings(plain.replace("vcpus=1", "vcpus = 2") + 'cmdline="a \\b"\nmax_event_channels=4096\n')
    assert tomllib.loads(text) == {"cmdline": "a \\b", "cpus": 2, "set": {"event_channels": 4096}}


def test_settings_are_written_where_there_are_some(tool: ModuleType, tmp_path: Path) -> None:
    tests = (("test-pv64-a~x", 2), ("test-pv64-b", 1), ("test-hvm64-a", 2), ("test-pv32pae-debug-regs", 1))
    for name, vcpus in tests:
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{name}.cfg").write_text(f"vcpus={vcpus}\n")
    tool.main(["settings", str(tmp_path)])
    made = {path.name: path.read_text() for path in tmp_path.rglob("*.toml")}
    assert made == {"test-pv64-a~x.toml": "cpus = 2\n", "test-pv32pae-debug-regs.toml": 'expect = "CRASH"\n'}


def test_results_are_put_into_the_page(tool: ModuleType, tmp_path: Path) -> None:
    verdicts = {"test-pv64-a": "SUCCESS", "test-pv32pae-a": "FAILURE", "test-pv64-argo": "SKIP", "other": "CRASH"}
    result, page = tmp_path / "result.json", tmp_path / "page.md"
    result.write_text(json.dumps({"runs": [{"name": name, "verdict": word} for name, word in verdicts.items()]}))
    page.write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")
    for _ in range(2):
        tool.main(["table", str(page), str(result)])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "other" not in text
    assert "| a | SUCCESS | FAILURE |  |\n" in text
    assert f"| argo | SKIP | - | {tool.REASONS['argo']} |\n" in text


def test_whatever_is_no_success_has_its_reason_on_the_page() -> None:
    rows = re.findall(r"^\| (.+?) \| (\w+|-) \| (\w+|-) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 30
    for _, *verdicts, why in rows[1:]:
        assert bool(why.strip()) is not ({"SUCCESS", "-"} >= set(verdicts))


def test_wrong_usage(tool: ModuleType) -> None:
    with pytest.raises(SystemExit, match="settings"):
        tool.main(["table"])
