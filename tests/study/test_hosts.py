"""A cluster of two hosts: namespaces of their own for network, mounts and names, joined by a cable (veth)."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs
import pytest

from pvops_core.study.rows import HERE, Measured
from pvops_core.study.store import Store
from pvops_core.testing.images import ElfBuilder

pytest.importorskip("distributed")

pytestmark = pytest.mark.slow
_PVOPS: Final = (sys.executable, "-m", "pvops_core")
_HOLD: Final = 'hostname {name} && mount --bind "$1" "$2" && ip link set lo up && echo up && exec sleep infinity'
_HIDE: Final = 'mount -t tmpfs none "$3" && '


@attrs.frozen
class Host:
    """A host, by the process that holds its namespaces."""

    pid: int

    def command(self, *words: str) -> list[str]:
        """What runs a command on it."""
        return ["nsenter", f"--target={self.pid}", "--user", "--net", "--mount", "--uts", "--preserve-credentials",
                f"--wd={Path.cwd()}", "--", *words]  # fmt: skip

    def run(self, *words: str) -> None:
        subprocess.run(self.command(*words), check=True, capture_output=True, text=True)


def held(stack: ExitStack, command: list[str]) -> int:
    """A process that holds namespaces until the stack is left; skips where there may be none."""
    holder = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    stack.callback(holder.kill)
    assert holder.stdout is not None
    assert holder.stderr is not None
    if holder.stdout.readline() != "up\n":
        pytest.skip(f"no namespaces here: {holder.stderr.read().strip()}")
    return holder.pid


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """Both have their own cache folder at one path; the second does not see the client's files."""
    if missing := [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]:
        pytest.skip(f"no {', '.join(missing)} here (util-linux, iproute2)")
    for name in ("cache", "cache-1", "cache-2", "client"):
        (tmp_path / name).mkdir()
    with ExitStack() as stack:
        places = [str(tmp_path / "cache"), str(tmp_path / "client")]
        shell = ["sh", "-c", _HOLD.format(name="host-1"), "sh", str(tmp_path / "cache-1"), *places]
        first = Host(held(stack, ["unshare", "--user", "--map-root-user", "--net", "--mount", "--uts", *shell]))
        shell = ["sh", "-c", _HIDE + _HOLD.format(name="host-2"), "sh", str(tmp_path / "cache-2"), *places]
        inside = ["nsenter", f"--target={first.pid}", "--user", "--preserve-credentials", "--"]
        second = Host(held(stack, [*inside, "unshare", "--net", "--mount", "--uts", *shell]))
        first.run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(second.pid))
        for number, host in enumerate((first, second), 1):
            host.run("ip", "address", "add", f"10.88.0.{number}/24", "dev", "cable")
            host.run("ip", "link", "set", "cable", "up")
        yield first, second


@pytest.fixture
def scheduler(hosts: tuple[Host, Host], tmp_path: Path) -> Iterator[str]:
    """The scheduler on the first host, a worker on each."""
    address = "tcp://10.88.0.1:8786"
    environ = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    serve = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "10.88.0.1", "--no-dashboard"]
    commands = [hosts[0].command(*serve)]
    for number, host in enumerate(hosts, 1):
        work = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--host", f"10.88.0.{number}"]
        size = ["--nworkers", "1", "--nthreads", "1", "--memory-limit", "0", "--no-dashboard"]
        commands.append(host.command(*work, *size, "--local-directory", str(tmp_path / "cache")))
    with ExitStack() as stack, (tmp_path / "said").open("wb") as said:
        for command in commands:
            process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
            stack.enter_context(process)
            stack.callback(process.terminate)
        yield address


def deterministic(folder: Path) -> list[tuple[object, ...]]:
    fields = [name for name in Measured.__struct_fields__ if name not in HERE]
    with Store.read(folder) as store:
        rows = store.rows()
        return [(row.axes, row.guest_sha256, *(getattr(row.measured, name) for name in fields)) for row in rows]


def test_two_hosts_give_what_one_gives(hosts: tuple[Host, Host], scheduler: str, tmp_path: Path) -> None:
    """A kernel travels to each host once; what cannot be run is told by the client's path."""
    client = tmp_path / "client"
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", b"\xf4"))
    kernel = builder.build()
    (client / "vmlinux").write_bytes(kernel)
    file = client / "study.toml"
    file.write_text(
        'kernels = ["builtin", "vmlinux"]\nlayouts = "6.1-64"\nbackends = ["native", "xen"]\nseeds = "0..7"\n'
    )
    environ = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    words = ("study", "run", str(file), "-o")
    there = [*hosts[0].command(*_PVOPS, *words, str(client / "spread")), "--scheduler", scheduler]
    here = [*_PVOPS, *words, str(client / "local"), "--jobs", "1"]
    ended = [subprocess.run(each, env=environ, capture_output=True, text=True, check=False) for each in (there, here)]
    assert ended[0].returncode == ended[1].returncode, ended[0].stderr + (tmp_path / "said").read_text()
    assert deterministic(client / "spread") == deterministic(client / "local")
    assert len(deterministic(client / "local")) == 32
    with Store.read(client / "spread") as store:
        assert {row.measured.host for row in store.rows()} == {"host-1", "host-2"}
    sha256 = hashlib.sha256(kernel).hexdigest()
    for number in (1, 2):
        assert (tmp_path / f"cache-{number}" / "pvops" / "study-files" / sha256).read_bytes() == kernel
