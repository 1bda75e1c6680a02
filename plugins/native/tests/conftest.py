from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from pvops_core.machine.memory import WriteWatch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["as the host tells", "the host does not tell"])
def watched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - of text_rig
    if request.param == "the host does not tell":
        monkeypatch.setattr(WriteWatch, "written", lambda _: None)
    return import_module("text_rig").Watched()
