"""The template of a backend's distribution: its versions, and how to fill one in or go from one to the next.

Every version that was released stays, since what the old one wrote tells an author's edits from the template's. A
project keeps version and answers in ``.copier-answers.yml``. copier does updates; it takes templates from git
repositories only, and so is given one that is made of the versions here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

ANSWERS: Final = ".copier-answers.yml"
"""The file in a project that says what it was made of."""
SOURCE: Final = "https://pvops.invalid/backend-template.git"
"""What projects are told that they come from; git is told where that is (RFC 2606: no such host can be)."""
SUFFIX: Final = ".jinja"
_ANSWERS_FILE: Final = "{{ _copier_conf.answers_file }}.jinja"
_CONFIG: Final = "copier.yml"
# What the user has set for git must neither name nor sign commits of the template's.
_AUTHOR: Final = ("-c", "user.name=pvops", "-c", "user.email=pvops@pvops.invalid", "-c", "commit.gpgsign=false")
_DATE: Final = "2000-01-01T00:00:00Z"
"""Of all commits, so that they are the same wherever they are made."""


def versions() -> Mapping[str, Traversable]:
    """The template's versions by name, ``v1`` first."""
    folder = resources.files("pvops_core.cli").joinpath("templates", "backend")
    found = {entry.name: entry for entry in folder.iterdir() if entry.name.startswith("v")}
    return {name: found[name] for name in sorted(found, key=lambda name: int(name[1:]))}


def fill_in(folder: Path, answers: Mapping[str, str]) -> list[str]:
    """Write the newest version's files, names filled in as well as contents; their paths below the folder.

    Raises:
        UsageError: a file cannot be written.
    """
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only this needs it

    engine = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - no HTML
    version, template = list(versions().items())[-1]
    made = {ANSWERS: _answers_text(version, answers)}
    known = {**answers, "dot": "."}
    for path, file in sorted(_files(template, ()), key=lambda found: found[0]):
        if path not in {(_CONFIG,), (_ANSWERS_FILE,)}:
            target = engine.from_string("/".join(path).removesuffix(SUFFIX)).render(known)
            if target.endswith("/"):
                continue  # a file that was not asked for
            made[target] = engine.from_string(file.read_text(encoding="utf-8")).render(known)
    try:
        for target, text in made.items():
            place = folder / target
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from error
    return list(made)


def _answers_text(version: str, answers: Mapping[str, str]) -> str:
    """The file as copier writes it; JSON's texts are YAML's too."""
    told = {"_commit": version, "_src_path": SOURCE, **answers}
    return "".join(f"{name}: {json.dumps(text, ensure_ascii=False)}\n" for name, text in sorted(told.items()))


def _files(folder: Traversable, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Traversable]]:
    found = []
    for entry in folder.iterdir():
        below = (*path, entry.name)
        found += _files(entry, below) if entry.is_dir() else [(below, entry)]
    return found


def answers_of(folder: Path) -> Mapping[str, str]:
    """What a project was made of.

    Raises:
        UsageError: it does not say.
    """
    try:
        lines = (folder / ANSWERS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder / ANSWERS} cannot be read: was it made by pvops new-backend?") from error
    pairs = (line.partition(": ") for line in lines if not line.startswith("#"))
    return {name: text.strip().strip("'\"") for name, _, text in pairs}


def update(folder: Path) -> tuple[list[str], list[str]]:
    """Bring a project up to the newest version, keeping what its author changed.

    Args:
        folder: the project, a git repository without uncommitted changes.

    Returns:
        The files that changed, and those of them where both sides changed the same lines, which are marked there.

    Raises:
        UsageError: git or copier is not there or refuses.
    """
    if shutil.which("git") is None or find_spec("copier") is None:
        raise UsageError("an update takes git and copier: python -m pip install 'pvops-core[update]'")
    with tempfile.TemporaryDirectory(prefix="pvops-template-") as scratch:
        source = _repository(Path(scratch) / "template")
        here = {
            "XDG_CACHE_HOME": scratch,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{source}.insteadOf",
            "GIT_CONFIG_VALUE_0": SOURCE,
        }
        command = [sys.executable, "-m", "copier", "update", "--defaults", "--quiet", str(folder)]
        _run(command, folder, here)
    changed = {*_names(folder, "HEAD"), *_git(folder, "ls-files", "-z", "--others", "--exclude-standard").split("\0")}
    return sorted(filter(None, changed)), sorted(_names(folder, "--diff-filter=U"))


def _names(folder: Path, *which: str) -> set[str]:
    """Files of a working tree that differ."""
    return set(filter(None, _git(folder, "diff", "--relative", "--name-only", "-z", *which).split("\0")))


def _repository(folder: Path) -> Path:
    """A git repository of the template's versions, a commit and a tag each."""
    folder.mkdir()
    _git(folder, "init", "--quiet", "--initial-branch=main")
    for version, template in versions().items():
        _git(folder, "rm", "-r", "--quiet", "--ignore-unmatch", ".")
        for path, file in _files(template, ()):
            place = folder.joinpath(*path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
        _git(folder, "add", "--all")
        _git(folder, *_AUTHOR, "commit", "--quiet", "--message", version)
        _git(folder, "tag", version)
    return folder


def _git(folder: Path, *words: str) -> str:
    return _run(["git", *words], folder, {"GIT_AUTHOR_DATE": _DATE, "GIT_COMMITTER_DATE": _DATE})


def _run(command: list[str], folder: Path, environ: Mapping[str, str]) -> str:
    done = subprocess.run(  # noqa: S603  git, or this interpreter
        command, cwd=folder, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise UsageError(f"{folder}: {said}")
    return done.stdout
