from __future__ import annotations

from pathlib import Path

import pytest

from pvops_core.errors import ImageError, UsageError
from pvops_core.kinds import MachineKind
from pvops_core.runs.guestfiles import Wishes, find_guests, names_of, read_wishes
from pvops_core.runs.verdict import Verdict
from pvops_core.testing.images import ElfBuilder, make_bzimage


@pytest.fixture
def image() -> bytes:
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", b"\xf4"))
    return builder.build()


def names(*paths: Path, only: str = "") -> list[str]:
    return names_of(find_guests(paths, only))


def test_a_folder_is_its_images(tmp_path: Path, image: bytes) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b").write_bytes(image)
    (tmp_path / "a").write_bytes(make_bzimage(image))
    (tmp_path / "object.o").write_bytes(image[:16] + b"\1" + image[17:])
    (tmp_path / "cut").write_bytes(image[:40])
    (tmp_path / "a.cfg").write_text("kernel = 'a'")
    (tmp_path / "locked").write_bytes(image)
    (tmp_path / "locked").unlink()
    (tmp_path / "locked").symlink_to("nowhere")
    assert names(tmp_path) == ["a", "b"]
    assert names(tmp_path, tmp_path / "a") == ["a", "b"]
    assert names(tmp_path / "deep" / "b", tmp_path) == ["b", "a"]
    assert names(tmp_path, only="[!a]") == ["b"]
    assert find_guests([tmp_path])[0].kind is MachineKind.X86_64


def test_what_was_named_has_to_be_an_image(tmp_path: Path, image: bytes) -> None:
    (tmp_path / "a").write_bytes(image)
    (tmp_path / "b").write_text("no")
    for wrong in (tmp_path / "b", tmp_path / "c"):
        with pytest.raises(ImageError, match=wrong.name):
            find_guests([tmp_path / "a", wrong])


def test_one_image_may_run_in_several_ways(tmp_path: Path, image: bytes) -> None:
    (tmp_path / "a").write_bytes(image)
    (tmp_path / "a~y.toml").write_text("cpus = 2")
    (tmp_path / "a~x.toml").write_text("cmdline = 'x'")
    assert [(guest.name, guest.wishes) for guest in find_guests([tmp_path])] == [
        ("a~x", Wishes(cmdline="x")),
        ("a~y", Wishes(cpus=2)),
    ]
    (tmp_path / "a.toml").write_text("")
    assert names(tmp_path) == ["a", "a~x", "a~y"]


def test_equal_names_have_their_folders(tmp_path: Path, image: bytes) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_bytes(image)
    assert names(tmp_path) == [str(tmp_path / "x" / "a"), str(tmp_path / "y" / "a")]


def test_every_key(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(
        "cmdline = 'a b'\ninitrd = 'disk'\nuntil = 'login'\ncpus = 2\nmemory = 64\nseed = 7\nexpect = 'SKIP'\n"
        "[set]\nevent_channels = 4096\nstrict = true\nversion = '4.17'\n"
    )
    options = {"event_channels": "4096", "strict": "true", "version": "4.17"}
    assert read_wishes(file) == Wishes("a b", str(tmp_path / "disk"), "login", 2, 64, 7, Verdict.SKIP, options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cmdlin = 'a'", "no key 'cmdlin'; .*did you mean cmdline"),
        ("vcpus = 2", "no key 'vcpus'; .*did you mean cpus"),
        ("cmdline = 1", "cmdline is a text, not 1"),
        ("cpus = '2'", "cpus is a number from 1 to 128, not '2'"),
        ("cpus = 0", "cpus is a number"),
        ("cpus = true", "cpus is a number"),
        ("memory = 1.5", "memory is a number"),
        ("seed = -1", "seed is a number"),
        ("expect = 'crash'", "expect is one of SUCCESS, SKIP, ERROR, FAILURE, CRASH, not 'crash'"),
        ("expect = ['CRASH']", "expect is one of "),
        ("set = 1", "set is a table of settings, not 1"),
        ("[set]\na = [1]", "set.a is a text, a number, true or false"),
        ("cmdline", "is no TOML: "),
        ("\udcff", "is no TOML: "),
    ],
)
def test_what_may_not_stand_there(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match=f"a.toml: {message}"):
        read_wishes(file)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").mkdir()
    with pytest.raises(UsageError, match="toml: cannot be read"):
        read_wishes(tmp_path / "a.toml")
