"""The backend as pvops loads it from this folder, installed or not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import load_backends
from pvops_core.images import KernelImage, load_image

if TYPE_CHECKING:
    from pvops_core.backends import Backend


@pytest.fixture(scope="session")
def backends() -> Mapping[str, Backend]:
    installed = load_backends()
    if "kvm" in installed.backends:
        return installed.backends
    return load_backends([str(Path(__file__).parents[1])]).backends


@pytest.fixture(scope="session")
def kernel() -> KernelImage:
    folder = os.environ.get("PVOPS_KERNELS")
    found = sorted(Path(folder).glob("vmlinuz-6.1*-cloud-amd64")) if folder else []
    if not found:
        pytest.skip("set PVOPS_KERNELS to a folder with a Debian 6.1 cloud vmlinuz")
    return load_image(found[0])
