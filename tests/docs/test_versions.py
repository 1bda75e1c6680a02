"""All distributions of the tree have one version, and the changelog begins with it, dated, or with what is to come."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_distributions_and_changelog_agree() -> None:
    files = [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml"), *ROOT.glob("examples/*/pyproject.toml")]
    versions = {
        file.parent.name: tomllib.loads(file.read_text(encoding="utf-8"))["project"]["version"] for file in files
    }
    assert len(versions) > 4
    (version,) = set(versions.values())
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert re.fullmatch(rf"{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)", released[0]), "the newest release is dated"
