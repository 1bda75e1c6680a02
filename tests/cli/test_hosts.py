"""A host whose engine keeps its state where pvops does not find it, as another architecture's may."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from pvops_core.cli import main
from pvops_core.machine.unicorn import probe
from pvops_core.testing.images import ElfBuilder

ALIEN = """
from pvops_core.backends import API, Backend
from pvops_core.kinds import MachineKind
from pvops_core.machine.unicorn import probe

found = probe._observe

def elsewhere():
    kernel, user, events = found()
    return bytes(len(kernel)), user, events

probe._observe = elsewhere
backend = Backend(name="alien", api=API, base="native", kinds=frozenset(MachineKind))
"""


@pytest.mark.parametrize("verb", ["run", "boot", "compare"])
def test_an_engine_that_is_not_known_is_refused_with_the_reason(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin, kernel = tmp_path / "alien.py", tmp_path / "vmlinux"
    plugin.write_text(ALIEN)
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", bytes.fromhex("fa f4")))
    kernel.write_bytes(builder.build())
    monkeypatch.setattr(probe, "_observe", probe._observe)  # the plugin is loaded here too
    given = {
        "run": ["--backend", "alien"],
        "boot": [str(kernel), "--backend", "alien"],
        "compare": ["--backends", "alien", "--layouts", "6.1-64"],
    }
    assert main([verb, *given[verb], "--plugin", str(plugin)]) == 4
    said = " ".join(capsys.readouterr().out.split())
    assert f"HostError: Unicorn 2.1.4 on this host ({platform.machine()}) is not one that pvops knows: 0 words" in said
    assert "It knows the builds for x86_64 Linux" in said
    assert "Traceback" not in said
