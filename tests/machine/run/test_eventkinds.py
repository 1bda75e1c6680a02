"""Every event that our own code records is of a kind that is declared, with fields that are."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from pvops_core.errors import MachineError
from pvops_core.machine.run.eventkinds import KINDS, EventKind, event_kind

ROOT = Path(__file__).parents[3]
FOLDERS = (ROOT / "pvops_core", *(ROOT / "plugins" / name / f"pvops_{name}" for name in ("native", "xen", "lguest")))


def recordings() -> list[tuple[str, ast.Call]]:
    found = []
    for folder in FOLDERS:
        for path in folder.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if "log.record(" not in text:
                continue
            module = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
            found += [
                (module, node)
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("log.record")
            ]
    return found


@pytest.mark.parametrize(
    ("module", "call"), [pytest.param(*each, id=f"{each[0]}:{each[1].lineno}") for each in recordings()]
)
def test_what_is_recorded_is_declared(module: str, call: ast.Call) -> None:
    kind = call.args[0]
    assert isinstance(kind, ast.Name), "declare it with event_kind, and name that"
    name = getattr(import_module(module), kind.id)
    declared = [each for (_, of), each in KINDS.items() if of == name and shares_home(each, module)]
    given = {keyword.arg for keyword in call.keywords if keyword.arg not in {None, "vcpu"}}
    assert any(given <= each.fields.keys() for each in declared), f"{name!r} is not declared with all of {given}"


def shares_home(kind: EventKind, module: str) -> bool:
    return kind.owner.split(".")[0] == module.split(".", maxsplit=1)[0]


def test_recordings_are_found() -> None:
    assert len(recordings()) > 30


def test_a_declaration_names_its_module_and_gives_the_name() -> None:
    assert event_kind("tea", "Somebody drank tea.", cups="int: how many", name="str: whose") == "tea"
    made = KINDS.pop((__name__, "tea"))
    assert (made.when, dict(made.fields)) == ("Somebody drank tea.", {"cups": "int: how many", "name": "str: whose"})


def test_a_field_must_have_a_type() -> None:
    with pytest.raises(MachineError, match="field 'cups' has no type of int, str, bytes: 'how many'"):
        event_kind("tea", "Somebody drank tea.", cups="how many")
