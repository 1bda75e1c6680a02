"""Archives for a kernel to unpack: read back by rules of their own, and what cannot be told in one is refused."""

from __future__ import annotations

import shutil
import stat
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import ImageError
from pvops_core.images.cpio import Entry, archive
from tests.ramdisk import entries

NAMES = st.text(st.sampled_from("ab.é"), min_size=1, max_size=6).filter(lambda name: name not in {".", ".."})
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(PATHS, st.binary(max_size=9), max_size=6))
def test_what_is_put_in_comes_out(files: dict[str, bytes]) -> None:
    """With its mode and bytes, after the folders that it lies in, and the same whatever the order of the entries."""
    flat = {name: data for name, data in files.items() if not any(other.startswith(f"{name}/") for other in files)}
    whole = archive(Entry.file(name, data, 0o755) for name, data in flat.items())
    assert whole == archive(Entry.file(name, data, 0o755) for name, data in reversed(flat.items()))
    found = list(entries(whole))
    assert found.pop()[0] == "TRAILER!!!"
    assert {name: data for name, fields, data in found if stat.S_ISREG(fields[1])} == flat
    seen = {""}
    for name, fields, _ in found:
        assert name.rpartition("/")[0] in seen
        assert fields[1] in {stat.S_IFREG | 0o755, stat.S_IFDIR | 0o755}
        seen.add(name)
    assert len(whole) % 512 == 0


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_cpio_reads_it() -> None:
    """The tool of the format lists it."""
    whole = archive(
        [
            Entry.link("bin/sh", "busybox"),
            Entry.file("bin/busybox", b"#!", 0o755),
            Entry.character_device("dev/console", 5, 1),
        ]
    )
    done = subprocess.run(["cpio", "-itvn"], input=whole, capture_output=True, check=True)
    lines = [" ".join(line.split()) for line in done.stdout.decode().splitlines()]
    assert [line.split()[0] for line in lines] == ["drwxr-xr-x", "-rwxr-xr-x", "lrwxrwxrwx", "drwxr-xr-x", "crw-------"]
    assert lines[2].endswith("bin/sh -> busybox")
    assert "5, 1" in lines[4]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (Entry.file("/init", b""), "no path"),
        (Entry.file("", b""), "no path"),
        (Entry.file("a//b", b""), "no path"),
        (Entry.file("../a", b""), "no path"),
        (Entry.file(".", b""), "no path"),
        (Entry.file("a\0b", b""), "cannot be a name"),
        (Entry.file("TRAILER!!!", b""), "cannot be a name"),
        (Entry.file("a" * 4096, b""), "longer than"),
        (Entry.link("a", "b" * 4096), "longer than"),
        (Entry("a", 1 << 16), "mode"),
        (Entry.character_device("a", 1 << 12, 0), "device number"),
        (Entry.character_device("a", 0, -1), "device number"),
    ],
)
def test_what_no_kernel_would_unpack_is_refused(entry: Entry, said: str) -> None:
    """With the entry's name."""
    with pytest.raises(ImageError, match=said) as caught:
        archive([entry])
    assert caught.value.field == entry.name


def test_names_that_clash_are_refused() -> None:
    """Two files of one name, and one below what is no folder."""
    with pytest.raises(ImageError, match="twice"):
        archive([Entry.file("a", b""), Entry.folder("a")])
    with pytest.raises(ImageError, match="lies in a, which is no folder"):
        archive([Entry.file("a/b/c", b""), Entry.link("a", "d")])


def test_a_name_that_is_no_text_keeps_its_bytes() -> None:
    """As a file system gives it."""
    assert b"\xff\0" in archive([Entry.file("\udcff", b"")])
