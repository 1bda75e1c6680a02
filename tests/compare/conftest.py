from __future__ import annotations

from tests.runs.conftest import Make, make

__all__ = ["Make", "make"]
