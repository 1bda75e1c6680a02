"""The sites of modules, out of records that a test writes: those that are damaged, those that share bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pvops_core.ops import LAYOUTS
from pvops_core.switchboard.kernel.modulesites import ModuleSites
from pvops_core.testing.kernels import Alternative
from tests.session.selfpatching import SelfPatching

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

TEXT, RECORDS, ALTERNATIVES, MODULE = 0xFFFFFFFFC0000000, 0xFFFFFFFFC0002000, 0xFFFFFFFFC0003000, 0xFFFFFFFFC0004000
LAYOUT = LAYOUTS["6.1-64"]
WRITE_CR3, READ_CR3 = LAYOUT.by_op("write_cr3"), LAYOUT.by_op("read_cr3")


class Loading:
    """A kernel that loads modules: its functions are come by as a test says, and its memory is a dictionary."""

    def __init__(self, image: KernelImage) -> None:
        self.memory: dict[int, bytes] = {}
        self.registers = {"rdi": 0, "rsi": 0}
        self.layouts = {"core_layout": (TEXT, 0x1000), "init_layout": (TEXT + 0x1000, 0x1000)}
        self.handlers: dict[int, list[Callable[[Any], None]]] = {}
        self.image = image
        self.virtual = self
        table = SimpleNamespace(layout=LAYOUT, address=lambda slot: 0xFFFFFFFF82000000 + slot.offset)
        structures = SimpleNamespace(struct=lambda _type, module: {} if module != MODULE else self.layouts_now())
        space = SimpleNamespace(walk=lambda va: SimpleNamespace(pa=va & 0xFFFFF))
        self.areas: list[tuple[Any, Callable[[int], int]]] = []
        running = SimpleNamespace(add=lambda *area: self.areas.append(area))
        self.sites = ModuleSites(image, self, running, space, table, lambda: structures)  # type: ignore[arg-type]

    def layouts_now(self) -> dict[str, Any]:
        return {name: SimpleNamespace(base=base, size=size) for name, (base, size) in self.layouts.items()}

    # A machine, and a vCPU of it:
    def break_at(self, address: int, action: Callable[[Any], None], *, acts: bool) -> None:
        assert not acts
        self.handlers.setdefault(address, []).append(action)

    def keep(self, _owner: object) -> None:
        """Nothing else is kept."""

    def defer(self, action: Callable[[], None]) -> None:
        action()

    def get(self, name: str) -> int:
        return self.registers[name]

    def read(self, va: int, length: int, *, system: bool) -> bytes:
        assert system
        return self.memory.get(va, b"").ljust(length, b"\xcc")[:length]

    def come_by(self, function: str, rdi: int, rsi: int = 0) -> None:
        self.registers = {"rdi": rdi, "rsi": rsi}
        for handler in self.handlers[self.image.symbols[function]]:
            handler(self)

    def patch(self, *sites: tuple[int, int, int]) -> None:
        """The module's ``.parainstructions``: address, type and length of each site."""
        data = b"".join(struct.pack("<QBB6x", *site) for site in sites)
        self.memory[RECORDS] = data
        self.come_by("apply_paravirt", RECORDS, RECORDS + len(data))

    def replace(self, *places: tuple[int, int]) -> None:
        """The module's ``.altinstructions``: address and length of each place."""
        data = b""
        for address, length in places:
            here = ALTERNATIVES + len(data)
            data += struct.pack("<iiHBB", address - here, 0, 272, length, 0)
        self.memory[ALTERNATIVES] = data
        self.come_by("apply_alternatives", ALTERNATIVES, ALTERNATIVES + len(data))

    def of(self, slot: Any = WRITE_CR3) -> list[int]:  # noqa: ANN401 - a slot
        return [site.address for site in self.sites.of(slot)]


@pytest.fixture
def loading() -> Loading:
    kernel = SelfPatching.of("mmu.write_cr3")
    kernel.typed = True
    kernel.alternatives = [Alternative(0, 272, inverted=True, code=b"\x90")]
    functions = dict.fromkeys(("apply_alternatives", "do_init_module", "free_module"), b"\xc3")
    return Loading(kernel.build(functions=functions))


def test_sites_are_there_from_the_modules_beginning_to_its_end(loading: Loading) -> None:
    told: list[int] = []
    loading.sites.listen(lambda sites: told.extend(site.address for site in sites))
    loading.memory[TEXT] = b"\xff\x15\1\2\3\4"
    loading.patch((TEXT, WRITE_CR3.type, 6), (TEXT + 8, READ_CR3.type, 6), (TEXT + 0x1000, WRITE_CR3.type, 6))
    assert (loading.of(), loading.sites.in_the_making(WRITE_CR3)) == ([], True)
    loading.come_by("do_init_module", MODULE)
    assert loading.of() == [TEXT, TEXT + 0x1000]
    assert told == [TEXT, TEXT + 8, TEXT + 0x1000]
    assert (loading.of(READ_CR3), loading.sites.in_the_making(WRITE_CR3)) == ([TEXT + 8], False)
    assert loading.sites.built(TEXT) == b"\xff\x15\1\2\3\4"
    assert loading.sites.built(TEXT + 1) is None
    assert [page in loading.sites for page in (TEXT, TEXT + 0x1FFF, TEXT + 0x2000)] == [True, True, False]
    loading.layouts["init_layout"] = (0, 0)
    assert loading.of() == [TEXT]
    loading.come_by("free_module", MODULE)
    assert loading.of() == []
    assert TEXT not in loading.sites


def test_what_another_module_has_there_takes_the_place_of_what_was(loading: Loading) -> None:
    loading.patch((TEXT, WRITE_CR3.type, 6), (TEXT + 16, WRITE_CR3.type, 6))
    loading.patch((TEXT + 5, READ_CR3.type, 6))
    loading.come_by("do_init_module", MODULE)
    assert (loading.of(), loading.of(READ_CR3)) == ([TEXT + 16], [TEXT + 5])


def test_a_place_that_is_more_or_less_than_a_site_is_the_kernels(loading: Loading) -> None:
    loading.patch(*((TEXT + 16 * number, WRITE_CR3.type, 6) for number in range(5)))
    loading.replace((TEXT, 6), (TEXT + 16, 8), (TEXT + 30, 6), (TEXT + 50, 2))
    loading.come_by("do_init_module", MODULE)
    assert loading.of() == [TEXT, TEXT + 64]
    assert loading.sites.whole


def test_a_snapshot_has_them(loading: Loading) -> None:
    loading.patch((TEXT, WRITE_CR3.type, 6))
    loading.come_by("do_init_module", MODULE)
    state = loading.sites.save()
    loading.come_by("free_module", MODULE)
    loading.sites.load(state)
    assert (loading.of(), TEXT in loading.sites, loading.sites.save()) == ([TEXT], True, state)


@pytest.mark.parametrize(
    ("function", "records", "size"),
    [
        ("apply_paravirt", b"", -8),
        ("apply_paravirt", b"", 1 << 21),
        ("apply_paravirt", bytes(11), 5),
        ("apply_paravirt", struct.pack("<QBB6x", TEXT, 0, 0), 16),
        ("apply_paravirt", struct.pack("<QBB6x", TEXT, len(LAYOUT.slots), 6), 16),
        ("apply_alternatives", bytes(11), 11),
    ],
)
def test_records_that_are_none_are_noted_as_such(loading: Loading, function: str, records: bytes, size: int) -> None:
    loading.memory[RECORDS] = records
    loading.come_by(function, RECORDS, RECORDS + size)
    loading.come_by("do_init_module", MODULE)
    assert not loading.sites.whole
    assert all(loading.of(slot) == [] for slot in LAYOUT.slots)


def test_the_kernels_own_records_are_none_of_a_modules(loading: Loading) -> None:
    own = loading.image.section(".parainstructions")
    assert own is not None
    loading.come_by("apply_paravirt", own.address, own.address + own.size)
    assert loading.sites.whole
    assert not loading.sites.in_the_making(WRITE_CR3)
