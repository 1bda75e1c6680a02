"""The command that runs one test again, from whatever folder it is pasted in."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pvops_core.backends.finding.paths import folders_of

if TYPE_CHECKING:
    from types import ModuleType

    import pytest

    from pvops_core.testing.fixtures.choices import Choices

PACKAGE: Final = Path(__file__).parents[2]


def replay(item: pytest.Item, backend: str, choices: Choices) -> str:
    """The command for a test on one backend.

    Args:
        item: the test.
        backend: name of the backend.
        choices: settings of its platform.
    """
    config = item.config
    words = [
        *_import_path(item),
        *_pytest(),
        *_test(item),
        "--pvops-backend",
        backend,
        "--pvops-seed",
        str(config.getoption("--pvops-seed")),
    ]
    if config.option.inifilename:
        words += ["-c", str(config.inipath)]
    for plugin in _plugins(config):
        words += ["--pvops-plugin", plugin]
    kernel = config.getoption("--pvops-kernel") or os.environ.get("PVOPS_KERNELS")
    if "pvops_recipe" in getattr(item, "fixturenames", ()) and kernel:
        words += ["--pvops-kernel", str(Path(kernel).absolute())]
        if ramdisk := config.getoption("--pvops-initrd"):
            words += ["--pvops-initrd", str(Path(ramdisk).absolute())]
    return f"{shlex.join(words)}{choices.options()}"


def _import_path(item: pytest.Item) -> Iterator[str]:
    """Folders that modules were imported from because pytest was called there, or PYTHONPATH has them."""
    given = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    here = [os.getcwd()] if {"", os.getcwd()} & set(sys.path) else []  # noqa: PTH109 - as it stands in sys.path
    anyway = {str(item.path.parent)} if item.config.getoption("importmode") == "prepend" else set()
    anyway |= {folder for folder in sys.path if sys.path.count(folder) > 1}  # an editable install's, too
    anyway |= {folder for plugin in _plugins(item.config) for folder in folders_of(plugin)}
    used = set(map(_folder, list(sys.modules.values())))
    wanted = [each for each in map(os.path.abspath, (*here, *given)) if each in used and each not in anyway]
    if wanted:
        yield from ("env", f"PYTHONPATH={os.pathsep.join(dict.fromkeys(wanted))}")


def _folder(module: ModuleType) -> str:
    """What has to be on the import path for a module; empty for one without a file."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return ""
    path = Path(os.path.abspath(file))  # noqa: PTH100 - a link stays one
    place = path.parent if path.stem == "__init__" else path
    above = list(place.parents)[module.__name__.count(".") :]
    return str(above[0]) if above else ""


def _pytest() -> Iterator[str]:
    """As short as is right: the command that the shell finds, if it is this interpreter's."""
    found = shutil.which("pytest")
    if found and Path(found).parent == Path(sys.executable).parent:
        yield "pytest"
    else:
        yield from (sys.executable, "-m", "pytest")


def _test(item: pytest.Item) -> Iterator[str]:
    """The test by its file, or of the suite by its module."""
    below = item.nodeid.partition("::")[2]
    if PACKAGE in item.path.parents:
        module = ".".join(item.path.relative_to(PACKAGE.parent).with_suffix("").parts)
        yield from ("--pyargs", f"{module}::{below}")
    else:
        yield f"{item.path}::{below}"


def _plugins(config: pytest.Config) -> Iterator[str]:
    """What to load from paths: given, of the project's, and of the environment."""
    of_environment = [text.strip() for text in os.environ.get("PVOPS_PLUGINS", "").split(",")]
    given = [*config.getoption("--pvops-plugin"), *map(str, config.getini("pvops_plugins")), *of_environment]
    yield from dict.fromkeys(_absolute(text) for text in given if text)


def _absolute(text: str) -> str:
    """A path from any folder; the name of a module stays."""
    place, colon, attribute = text.rpartition(":") if text.rpartition(":")[0].endswith(".py") else (text, "", "")
    path = Path(place).expanduser()
    return f"{os.path.abspath(path)}{colon}{attribute}" if path.exists() or os.sep in place else text  # noqa: PTH100  a link stays one
