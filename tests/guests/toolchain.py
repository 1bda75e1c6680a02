"""Whether objects can be rebuilt byte for byte here."""

from __future__ import annotations

import os

import pytest

from pvops_core.guests import toolchain


def exact_toolchain() -> bool:
    """Whether the exact compiler is here; in CI it must be."""
    found = toolchain.toolchain()
    if found == (toolchain.COMPILER, toolchain.LINKER):
        return True
    wanted = f"gcc {toolchain.COMPILER} and binutils {toolchain.LINKER}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must rebuild the guest with {wanted}; it has {found}")
    pytest.skip(f"rebuilding the guest byte for byte needs {wanted} (Debian 12: apt-get install gcc binutils)")
