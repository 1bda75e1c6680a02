"""What verbs write as JSON is what ``schema/`` says, field for field."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from pvops_core.cli import VERBS, main
from pvops_core.ops import LAYOUTS
from pvops_core.testing.images import ElfBuilder
from pvops_core.testing.kernels import SmallKernel
from pvops_core.testing.qemu import FUNCTIONS, install, story
from tests.cli.test_explore import RACY
from tests.payloads import quiet_payload
from tests.session.selfpatching import SelfPatching

ROOT = Path(__file__).parents[2]
PAYLOAD_SOURCE = ROOT / "pvops_core" / "livepatch" / "examples" / "hello.c"
OFF = "66ba0406 66b80020 66ef f4"
"""Machine code that switches bare metal off."""
Schema = dict[str, Any]
Command = Callable[[Path], list[str]]


def _written(path: Path, data: bytes | str) -> str:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def _small_kernel(folder: Path, name: str = "6.1-64") -> str:
    layout = LAYOUTS[name]
    return _written(folder / "vmlinux", SmallKernel(layout, types=range(len(layout.slots))).builder().build())


def _bootable(folder: Path) -> str:
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start_kernel", builder.text(".text", bytes.fromhex(OFF)))
    return _written(folder / "vmlinux", builder.build())


def _provable(folder: Path) -> str:
    """Its functions do nothing, which is not what hooks do."""
    kernel = SelfPatching.of("mmu.read_cr2", "mmu.write_cr2", "mmu.pgd_alloc").build(body=(0, 1, 2))
    return _written(folder / "vmlinux", kernel.data)


def _recordable(folder: Path) -> str:
    """A kernel, and in the same folder a QEMU that boots it and patches nothing."""
    layout = LAYOUTS["7.2-64"]
    functions = (*FUNCTIONS, *(f"filler{number}" for number in range(32)))
    kernel = SmallKernel(layout, range(len(layout.slots)), functions=functions, typed=True)
    install(folder, story(kernel))
    return _written(folder / "vmlinux", kernel.builder().build())


def _recorded(folder: Path) -> tuple[str, str]:
    kernel, record = _recordable(folder), str(folder / "record.json")
    assert main(["record", kernel, "--output", record]) == 0
    return kernel, record


def _patch_against(folder: Path) -> list[str]:
    kernel, record = _recorded(folder)
    return ["patch", kernel, "--backend", "native", "--alternatives", "--cpu", "qemu64", "--against", record]


def _broken_plugin(folder: Path) -> str:
    return _written(folder / "broken.py", "backend = None\n")


def _livepatch_script(folder: Path) -> list[str]:
    script = _written(folder / "script", f"300us load {quiet_payload(folder)!s}\n+1us list\n100ms list\n")
    return ["livepatch", "run", script]


def _racy(folder: Path) -> list[str]:
    return ["--plugin", _written(folder / "racy.py", RACY), "--backend", "racy"]


VARIANTS = {"boot of several": "boots", "run of several": "explore", "run of one schedule": "explore"}
"""Commands that write another document than others of their verb."""
COMMANDS: Mapping[str, Command] = {
    "run": lambda _: ["run"],
    "run out of time": lambda _: ["run", "--max-seconds", "0.001"],
    "run of several": lambda folder: ["run", "--cpus", "2", "--explore", "20", *_racy(folder)],
    "run of one schedule": lambda _: ["run", "--cpus", "2", "--explore", "2"],
    "boot": lambda folder: ["boot", _bootable(folder), "--memory", "32"],
    "boot of several": lambda folder: ["boot", _bootable(folder), _bootable(folder), "--memory", "32"],
    "boot live-patched": lambda folder: [
        *(
            "boot",
            _bootable(folder),
            "--memory",
            "32",
            "--livepatch",
            _written(folder / "script", "0ns list\n1s list\n"),
        ),
    ],
    "shell": lambda folder: ["shell", _bootable(folder), "--script", _written(folder / "script", "run()")],
    "cache list": lambda _: ["cache", "list"],
    "cache clear": lambda _: ["cache", "clear", "--older", "10000"],
    "compare": lambda _: ["compare", "--layouts", "6.1-64"],
    "compare boots": lambda folder: ["compare", "--kernel", _bootable(folder), "--backends", "native,lguest"],
    "compare what differs": lambda folder: [
        "compare",
        *(
            "--backends",
            "native,lguest",
            "--layouts",
            "2.6.23-lapic",
            "--cpus",
            "2",
            "--plugin",
            _broken_plugin(folder),
        ),
    ],
    "compare of a kernel": lambda folder: ["compare", "--kernel", _bootable(folder), "--memory", "32"],
    "backends": lambda _: ["backends"],
    "backends checked": lambda folder: ["backends", "--check", "--plugin", _broken_plugin(folder)],
    "run that switches": lambda _: [*("run", "--switch", "irq.*=native@exercise"), *("--switch", "io_delay=native@9s")],
    "sites": lambda folder: ["sites", _small_kernel(folder)],
    "sites of none": lambda folder: ["sites", _bootable(folder)],
    "patch": lambda folder: ["patch", _small_kernel(folder), "--backend", "native"],
    "patch alternatives": lambda folder: [
        "patch",
        _small_kernel(folder, "7.2-64"),
        "--backend",
        "native",
        "--alternatives",
    ],
    "patch against a record": _patch_against,
    "record": lambda folder: ["record", _recordable(folder), "--output", str(folder / "record.json.gz")],
    "prove": lambda folder: ["prove", "--kernel", _provable(folder), "--memory", "32"],
    "scenario": lambda _: ["scenario"],
    "scenario by name": lambda _: ["scenario", "early-cr3"],
    "new-backend": lambda folder: ["new-backend", "demo", "--directory", str(folder / "demo")],
    "livepatch build": lambda folder: [
        *("livepatch", "build", str(PAYLOAD_SOURCE), "--function", "report", "--output", str(folder / "made")),
    ],
    "livepatch show": lambda folder: ["livepatch", "show", str(quiet_payload(folder))],
    "livepatch run": _livepatch_script,
}


def _places(schema: Schema) -> Iterator[Schema]:
    """The schema of every place in the document: all but the parts that others are put together of."""
    below = [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    for part in [*schema.get("properties", {}).values(), *below, *schema.get("prefixItems", ())]:
        yield part
        yield from _places(part)
    for part in [*schema.get("$defs", {}).values(), *schema.get("allOf", ()), *schema.get("oneOf", ())]:
        yield from _places(part)


def _closed(schema: Schema) -> Schema:
    """The schema with nothing allowed that it does not describe: what is published lets fields be added."""
    closed: Schema = json.loads(json.dumps(schema))
    for place in [closed, *_places(closed)]:
        place["unevaluatedProperties"] = False
    return closed


@pytest.fixture(scope="module")
def schemas() -> dict[str, Schema]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "schema").glob("*.json"))]
    return {schema["$id"].split(":")[3]: schema for schema in found}


@pytest.fixture(scope="module")
def registry(schemas: dict[str, Schema]) -> Registry[Any]:
    resources = (Resource.from_contents(_closed(schema)) for schema in schemas.values())
    return Registry().with_resources((resource.id() or "", resource) for resource in resources)


def test_every_verb_has_a_schema_that_is_one(schemas: dict[str, Schema]) -> None:
    assert schemas.keys() == {*VERBS, *VARIANTS.values()}
    for verb, schema in schemas.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["properties"]["schema"]["const"] == f"pvops.{verb}/1"


@pytest.mark.parametrize("what", COMMANDS)
def test_what_is_written_is_what_the_schema_says(
    what: str, schemas: dict[str, Schema], registry: Registry[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    if what == "livepatch build" and not (shutil.which("cc") and shutil.which("ld")):
        pytest.skip("needs cc and ld")
    target = tmp_path / "result.json"
    words = COMMANDS[what](tmp_path)
    main([*words, "--json", str(target)])
    document = json.loads(target.read_text(encoding="utf-8"))
    schema = _closed(schemas[VARIANTS.get(what, words[0])])
    jsonschema.Draft202012Validator(schema, registry=registry).validate(document)


@pytest.mark.kernel
def test_what_is_written_of_a_look_inside_is_what_the_schema_says(
    schemas: dict[str, Schema], registry: Registry[Any], tmp_path: Path, kernel_path: Callable[[str], Path]
) -> None:
    target, hook = tmp_path / "result.json", tmp_path / "mine.py"
    hook.write_text("def io_delay(cpu, *_):\n    return None\n")
    words = ["boot", str(kernel_path("vmlinuz-6.1.0-56-cloud-amd64")), "--cmdline", "console=ttyS0"]
    main(
        [
            *words,
            "--verify-patching",
            "--hook",
            f"io_delay={hook}:io_delay",
            "--stop-at",
            "patched",
            "--ops",
            "mmu.tlb_remove_table",
            "--json",
            str(target),
        ]
    )
    document = json.loads(target.read_text(encoding="utf-8"))
    assert document["inside"].keys() == {"patching", "hooks", "ops"}
    jsonschema.Draft202012Validator(_closed(schemas["boot"]), registry=registry).validate(document)


def test_a_field_that_is_not_described_is_noticed(schemas: dict[str, Schema], registry: Registry[Any]) -> None:
    listed = {"schema": "pvops.scenario/1", "scenarios": [{"name": "a", "summary": "b"}]}
    validator = jsonschema.Draft202012Validator(_closed(schemas["scenario"]), registry=registry)
    validator.validate(listed)
    for spoilt in (
        {**listed, "more": 1},
        {**listed, "scenarios": [{"name": "a", "summary": "b", "more": 1}]},
        {**listed, "scenarios": [{"name": "a"}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(spoilt)
