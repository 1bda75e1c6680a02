"""``make setup`` says what it is at, as it takes minutes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_setup_tells_each_step_before_it_and_what_to_do_next(tmp_path: Path) -> None:
    command = ["make", "--dry-run", "--always-make", "setup", f"VENV={tmp_path}/venv", f"PYTHON={sys.executable}"]
    alone = {name: value for name, value in os.environ.items() if "MAKE" not in name and "MFLAGS" not in name}
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=alone)
    lines = done.stdout.replace("\\\n", " ").splitlines()
    steps = [number for number, line in enumerate(lines) if re.match(r'echo "\d/3 ', line)]
    assert len(steps) == 3
    assert lines[0].startswith('echo "Setting up ')
    fetching = next(line for line in lines[steps[1] :] if " pip install " in line)
    assert "--progress-bar on" in fetching
    assert "--quiet" not in fetching
    assert lines[-1] == f'echo "Ready: {tmp_path}/venv/bin/pvops --help"'
