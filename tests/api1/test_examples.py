"""The examples as they were before API 2, out of this project's own history: their tests pass."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAST_OF_API_1 = "7e8b7f8"


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    command = ["git", "archive", LAST_OF_API_1, "examples"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"commit {LAST_OF_API_1} is not here: this is no clone with its history")
    folder = tmp_path_factory.mktemp("api1")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "examples"


@pytest.mark.parametrize("name", ["vmware", "kvm"])
def test_an_examples_tests_pass(examples: Path, name: str) -> None:
    folder = examples / f"pvops-{name}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder / "tests"]
    environment = {name: text for name, text in os.environ.items() if name not in {"PVOPS_KERNELS", "PYTEST_ADDOPTS"}}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "HookDeprecationWarning" in done.stdout
