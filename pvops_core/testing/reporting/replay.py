"""The command that runs one test again, from whatever folder it is pasted in."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
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
