"""What plugins depend on: the number of the plugin API, which the core offers as an extra for each that it takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pvops_core.backends import API, OLDEST_API, load_backends

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(path.parent for kind in ("plugins", "examples") for path in ROOT.glob(f"{kind}/*/pyproject.toml"))


def test_the_core_offers_each_number_that_it_takes() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    numbers = {name: needs for name, needs in extras.items() if name.startswith("api-")}
    assert numbers == {f"api-{number}": [] for number in range(OLDEST_API, API + 1)}


def test_all_brings_the_backends_and_what_reports_are_made_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    mine = {tomllib.loads((each / "pyproject.toml").read_text())["project"]["name"] for each in PROJECTS}
    ours = {name for name in mine if (ROOT / "plugins" / name.removeprefix("pvops-")).is_dir()}
    assert ours == {"pvops-native", "pvops-xen", "pvops-lguest"}
    assert set(project["optional-dependencies"]["all"]) == {"pvops-core[report]", *ours}
    assert "pip install 'pvops-core[all]'" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_a_plugin_depends_on_the_number_that_it_is_written_for(project: Path) -> None:
    needs = tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
    (core,) = [need for need in needs if need.startswith("pvops-core")]
    name = project.name.removeprefix("pvops-")
    backend = load_backends([] if project.parent.name == "plugins" else [str(project)]).backends[name]
    assert core == f"pvops-core[api-{backend.api}]"
    assert not [need for need in needs if re.search("[<=>]", need)]
