"""Every block of code on every page runs, or says in a comment above it why it does not.

``sh`` blocks and the commands of ``console`` blocks run in a folder that is the page's own, and what a console shows
must be what they say; ``...`` stands for anything. A command that pytest prints under ``pvops replay`` is pasted in
another folder, and must fail there as it did. ``python`` blocks share one namespace, except tests, which pytest runs. A
block that begins with a file's name in a comment is that file. ``<!-- skip: next "why" -->`` above a block leaves it
out.
"""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from unittest import SkipTest

import pytest
from markdown_it import MarkdownIt
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

ROOT: Final = Path(__file__).parents[2]
MADE: Final = {
    "hooks.md",
    "commands.md",
    "json.md",
    "pytest-plugin.md",
    "settings.md",
    "xen-rules.md",
    "planted-bugs.md",
}
"""Pages that are made of what they describe."""
SHOWN: Final = {"text", "c", "toml", "ini", "json", "yaml"}
"""Languages of blocks that are not there to be run."""
COMMAND: Final = re.compile(r"^\$ (.*\n(?:> .*\n)*)((?:(?!\$ ).*\n?)*)", re.MULTILINE)
FILE: Final = re.compile(r"(?:#|//|/\*) ([\w/-]+\.\w+)(?: \*/)?\n")
REPLAY: Final = re.compile(r"^-+ pvops replay -+\n(.*)$", re.MULTILINE)
LIMIT_S: Final = 400
USUAL: Final = "vmlinuz-6.1.0-56-cloud-amd64"
"""The kernel that pages mean by ``vmlinuz`` where they show what it says."""


def _pages() -> list[Path]:
    """Every page that somebody wrote."""
    patterns = ("README.md", "docs/**/*.md", "examples/*/README.md", "plugins/*/README.md")
    found = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return [path for path in found if path.name not in MADE and "_build" not in path.parts]


every_page = pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))


def _run(command: str, folder: Path | None = None, code: int = 0) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120"}
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=environment,
        cwd=folder,
        check=False,
    )
    assert done.returncode == code, f"{command.strip()}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def evaluate_file(example: Example) -> None:
    if named := FILE.match(example.parsed):
        Path(named[1]).parent.mkdir(parents=True, exist_ok=True)
        Path(named[1]).write_text(example.parsed)


def evaluate_sh(example: Example) -> None:
    _run(example.parsed)


def evaluate_console(example: Example) -> None:
    commands = COMMAND.findall(example.parsed)
    assert commands, "a console block begins its commands with $"
    for command, shown in commands:
        said = _run(command.replace("\n> ", "\n"))
        if shown.strip() and not doctest.OutputChecker().check_output(_plain(shown), _plain(said), doctest.ELLIPSIS):
            pytest.fail(f"{example.path}:{example.line}: {command.strip()}\nshown:\n{shown}\nsaid:\n{said}")
        for printed in REPLAY.findall(said):
            with TemporaryDirectory() as elsewhere:
                again = _run(f"{printed} -p no:cacheprovider", Path(elsewhere), code=1)
            assert "1 failed" in again, f"{printed}:\n{again}"


def _plain(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


def evaluate_python(example: Example) -> None:
    if FILE.match(example.parsed):
        evaluate_file(example)
    elif re.search(r"^def test_", example.parsed, re.MULTILINE):
        example.namespace["tests"].append(example.parsed)
    else:
        PythonEvaluator()(example)


PARSERS: Final = (
    CodeBlockParser("sh", evaluate_sh),
    CodeBlockParser("console", evaluate_console),
    CodeBlockParser("python", evaluate_python),
    *(CodeBlockParser(language, evaluate_file) for language in sorted(SHOWN)),
    SkipParser(),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a page's commands run: it has the examples and studies, and the kernels if there are any."""
    for name in ("examples", "studies"):
        (tmp_path / name).symlink_to(ROOT / name)
    for kernel in Path(os.environ.get("PVOPS_KERNELS") or tmp_path / "none").glob("*"):
        (tmp_path / kernel.name).symlink_to(kernel)
    if (tmp_path / USUAL).exists():
        (tmp_path / "vmlinuz").symlink_to(USUAL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@every_page
def test_every_block_runs(page: Path, folder: Path) -> None:
    document = Document.parse(str(page), *PARSERS)
    document.namespace |= {
        "tests": [],
        "no_kernels": not os.environ.get("PVOPS_KERNELS"),
        "no_qemu": not shutil.which("qemu-system-x86_64"),
        "no_compiler": not (shutil.which("cc") and shutil.which("ld")),
    }
    for example in document:
        try:
            example.evaluate()
        except SkipTest:
            continue
    if document.namespace["tests"]:
        head = 'import pytest\n\npytestmark = pytest.mark.pvops_backends("native", "xen")'
        (folder / "test_page.py").write_text("\n\n".join([head, *document.namespace["tests"]]))
        _run(f"{sys.executable} -m pytest -q -p no:cacheprovider test_page.py")


@every_page
def test_every_block_says_what_it_is(page: Path) -> None:
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    blocks = [(token.type, token.info, token.map) for token in tokens if token.type in {"fence", "code_block"}]
    known = SHOWN | {"sh", "console", "python", "{eval-rst}"}
    assert [block for block in blocks if block[0] == "code_block" or block[1] not in known] == []


def test_a_replay_that_does_not_replay_is_noticed(folder: Path) -> None:
    line = "--- pvops replay ---"
    (folder / "page.md").write_text(f"```console\n$ printf '%s\\n' '{line}' 'pytest gone.py'\n```\n")
    with pytest.raises(AssertionError, match=r"gone\.py"):
        next(iter(Document.parse(str(folder / "page.md"), *PARSERS))).evaluate()


def test_a_wrong_block_is_noticed(folder: Path) -> None:
    for text in ("```console\n$ echo one\ntwo\n```\n", "```sh\nfalse\n```\n", "```python\nassert False\n```\n"):
        (folder / "page.md").write_text(text)
        document = Document.parse(str(folder / "page.md"), *PARSERS)
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            next(iter(document)).evaluate()
