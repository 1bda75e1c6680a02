"""The suite, for the backend that ``--pvops-backend`` names."""

from __future__ import annotations

from pvops_core.testing.conformance.suite import Conformance


class TestConformance(Conformance):
    """All of it."""
