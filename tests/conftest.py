"""Fixtures for the real kernels and the records of what real boots did to them."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from pvops_core.images import KernelImage, load_image

# The same examples in every run, on a machine of any speed.
settings.register_profile("pvops", derandomize=True, deadline=None)
settings.load_profile("pvops")

OF_THE_USER = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PVOPS_PLUGINS", "PVOPS_DISABLE_PLUGINS")
"""Variables that change what commands print or load."""

PACKAGES = {
    "vmlinuz-6.1.0-56-cloud-amd64": "linux-image-6.1.0-56-cloud-amd64-unsigned",
    "vmlinuz-6.1.0-56-amd64": "linux-image-6.1.0-56-amd64-unsigned",
    "vmlinuz-6.12.117+deb12-cloud-amd64": "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
    "vmlinuz-6.12.117+deb12-amd64": "linux-image-6.12.117+deb12-amd64-unsigned",
    "vmlinuz-7.2.13+deb14-cloud-amd64": "linux-binary-7.2.13+deb14-cloud-amd64",
    "vmlinuz-6.1.0-50-686-pae": "linux-image-6.1.0-50-686-pae-unsigned:i386",
}

# A shell ignores interrupts for what it runs in the background, and children inherit that; tests send interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _nobodys_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OF_THE_USER:
        monkeypatch.delenv(name, raising=False)


def _absent(what: str, how: str) -> None:
    if os.environ.get("PVOPS_REQUIRE_KERNELS"):
        pytest.fail(f"{what}, and PVOPS_REQUIRE_KERNELS is set; {how}")
    pytest.skip(f"{what}; {how}")


def _kernel(name: str) -> Path:
    how = f"`apt-get download {PACKAGES[name]}`, put its kernel into a folder as {name}, set PVOPS_KERNELS=folder"
    folder = os.environ.get("PVOPS_KERNELS")
    if not folder:
        _absent("PVOPS_KERNELS is not set", how)
    path = Path(folder or "") / name
    if not path.is_file():
        _absent(f"no {name} in PVOPS_KERNELS={folder}", how)
    return path


@pytest.fixture(scope="session")
def kernel_path() -> Callable[[str], Path]:
    """The path of a Debian kernel by its file name; skips, or fails where kernels are required."""
    return _kernel


@pytest.fixture(scope="session")
def grub_path() -> Callable[[str], Path]:
    """The path of one of GRUB's images for Xen domains by its file name; skips where it is not there."""

    def get(name: str) -> Path:
        path = Path(os.environ.get("PVOPS_GRUB") or "/usr/lib/grub-xen") / name
        if not path.is_file():
            pytest.skip(f"no {path}; install Debian's grub-xen-host, or unpack it and set PVOPS_GRUB=folder")
        return path

    return get


@pytest.fixture(scope="session")
def kernels() -> Callable[[str], KernelImage]:
    """A loaded Debian kernel by its file name; skips, or fails where kernels are required."""
    loaded: dict[str, KernelImage] = {}

    def get(name: str) -> KernelImage:
        if name not in loaded:
            loaded[name] = load_image(_kernel(name))
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def oracle() -> Callable[[str], Mapping[str, Any]]:
    """A record of a real boot by its name; PVOPS_ORACLE names their folder."""

    def get(name: str) -> Mapping[str, Any]:
        how = "set PVOPS_ORACLE to the folder of the recorded boots"
        folder = os.environ.get("PVOPS_ORACLE")
        if not folder:
            _absent("PVOPS_ORACLE is not set", how)
        path = Path(folder or "") / f"{name}.json.gz"
        if not path.is_file():
            _absent(f"no {path.name} in PVOPS_ORACLE={folder}", how)
        with gzip.open(path, "rt") as stream:
            record: Mapping[str, Any] = json.load(stream)
        return record

    return get
