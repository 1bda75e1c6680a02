from __future__ import annotations

from pathlib import Path

import pytest

from pvops_core.study.errors import StudyError
from pvops_core.study.rows import Row, columns
from pvops_core.study.spec import KernelAndInitrd, StudySpec, line_of, parse_spec, read_spec


def test_every_list_may_be_one_value() -> None:
    spec = parse_spec('backends = "xen"\ncpus = [1, "2..4"]\nkernels = {kernel = "a", initrd = "b"}', "a.toml")
    assert spec == StudySpec(backends="xen", cpus=(1, "2..4"), kernels=KernelAndInitrd("a", "b"))


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("cpus = 1\ncpus = = 2", 2, "", "is no TOML"),
        ("cpus = [", None, "", "is no TOML"),
        ("cpus = 1\nbackend = 'xen'", 2, "backend", "did you mean backends?"),
        ("\n\nseeds = 1.5", 3, "seeds", "got `float`"),
        ("cpus = [1,\n 2, -3]", 1, "cpus[2]", ">= 0"),
        ("repeats = 0", 1, "repeats", ">= 1"),
        ("max_seconds = 0", 1, "max_seconds", "> 0"),
        ("[[exclude]]\ncpus = 1\n[[exclude]]\ncpus = 2\nbackend = {a = 1}", 5, "exclude[1][...]", "got `object`"),
        ("exclude = 3", 1, "exclude", "got `int`"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, line: int | None, key: str, words: str) -> None:
    with pytest.raises(StudyError, match=r"^a\.toml") as told:
        parse_spec(text, "a.toml")
    assert words in str(told.value)
    assert told.value.key == key
    if "..." not in key:
        assert told.value.line == line


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot be read: No such file"):
        read_spec(tmp_path / "none.toml")
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(StudyError, match="cannot be read"):
        read_spec(tmp_path / "a.toml")


def test_lines_of_rules() -> None:
    text = "cpus = 1\n[[include]]\ncpus = 2\n[[exclude]]\nseed = 1\n[[exclude]]\ncpus = 3\n"
    assert line_of(text, "cpus") == 1
    assert line_of(text, "exclude[1].cpus") == 7
    assert line_of(text, "exclude[0].seed") == 5
    assert line_of(text, "exclude[1].memory") == 6
    assert line_of("exclude = [{cpus = 1}]", "exclude[0].cpus") == 1
    assert line_of(text, "none") is None


def test_every_key_and_column_is_on_its_page() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/study.md").read_text(encoding="utf-8")
    keys, columns_ = page.split("## Results")
    assert not [key for key in StudySpec.__struct_fields__ if f"`{key}`" not in keys]
    assert not [name for name, _type in columns(Row) if f"`{name}`" not in columns_]
