"""What sound backends declare without effect: each is told, and is loaded all the same."""

from __future__ import annotations

import pytest

from pvops_core.backends import load_backends
from tests.backends.conftest import ONLY_HERE, Shelf

UNMARKED = "its ops have a method of this name that is not marked @hookimpl"
PATCHLET = "it has a patchlet for it, but not the op"
OPS = """
class Parent:
    def __init__(self, env): ...
    @hookimpl
    def halt(self, cpu): ...

class Ops(Parent):
    {body}

backend = make('good', ops=Ops{more})
"""
NOP = ", patchlets=(Patchlet('wbinvd', 'nop', '90', layouts=('6.1-64',)),)"

CASES = {
    "a method": ("def wbinvd(self, cpu): ...", "", [("wbinvd", UNMARKED)]),
    "a static one": ("wbinvd = staticmethod(print)", "", [("wbinvd", UNMARKED)]),
    "in the place of a marked one": ("def halt(self, cpu): ...", "", [("halt", UNMARKED)]),
    "a renamed one": ("@hookimpl(specname='wbinvd')\n    def halt(self, cpu): ...", "", [("halt", UNMARKED)]),
    "a patchlet without its op": ("pass", NOP, [("wbinvd", PATCHLET)]),
    "both": ("def wbinvd(self, cpu): ...", NOP, [("wbinvd", UNMARKED), ("wbinvd", PATCHLET)]),
    "a function from elsewhere": ("wbinvd = hookimpl(lambda self, cpu: None)", "", []),
    "an ordinary method": ("def write_back(self, cpu): ...", "", []),
    "a property": ("wbinvd = property(lambda self: None)", "", [("wbinvd", UNMARKED)]),
    "a patchlet of an op": ("@hookimpl\n    def wbinvd(self, cpu): ...", NOP, []),
    "a patchlet of a nop": ("pass", NOP + ", nops=frozenset({'wbinvd'})", []),
    "a patchlet of an empty op": ("pass", NOP + ", empty=frozenset({'wbinvd'})", []),
}


@pytest.mark.parametrize("case", CASES)
def test_notes(shelf: Shelf, case: str) -> None:
    body, more, wanted = CASES[case]
    shelf.put("a-good-one", OPS.format(body=body, more=more))
    loaded = load_backends(environ=ONLY_HERE)
    assert list(loaded.backends) == ["good"]
    assert not loaded.errors
    assert len(loaded.notes) == len(wanted)
    for note, (hook, message) in zip(loaded.notes, wanted, strict=True):
        assert (note.hook, note.distribution, note.version) == (hook, "a-good-one", "1.2.3")
        assert message in note.message


def test_the_backends_here_have_none() -> None:
    assert not load_backends().notes
