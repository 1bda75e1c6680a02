"""The suite that proves a backend: ``pytest --pvops-backend NAME --pyargs pvops_core.testing.conformance``."""
