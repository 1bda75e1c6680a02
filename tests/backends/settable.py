"""Settings for tests."""

from __future__ import annotations

from pvops_core.backends import load_backends

BACKENDS = load_backends().backends
