"""The I/O port space: which device answers a port, and how wide accesses reach byte-wide devices.

Source of the rules: Intel SDM volume 1, chapter 19 (I/O ports are bytes; a word or doubleword access covers two
or four consecutive ports). A port that nobody claims floats: it reads as all ones and ignores writes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import attrs

if TYPE_CHECKING:
    from pvops_core.machine import Plain

WIRE: Final = {"wire": True}
"""Metadata of a device's field that is a connection to the outside and no part of its state."""


class PortDevice(attrs.AttrsInstance, Protocol):
    """A byte-wide device on the port bus."""

    @property
    def ports(self) -> Iterable[int]:
        """The ports it decodes."""

    def read(self, port: int) -> int:
        """The byte that the device drives when ``port`` is read."""

    def write(self, port: int, value: int) -> None:
        """Takes the byte ``value`` written to ``port``."""


DeviceState: TypeAlias = dict[str, Any]
"""Every field of a device that is no wire, by name; of a part of it, the same of that. Numbers that a file's do not
hold are bytes, the lowest first."""
_WIDTH: Final = 63


def state_of(device: attrs.AttrsInstance) -> DeviceState:
    """Every field of an attrs-made device that is not a wire, as plain data."""
    return {name: _plain(getattr(device, name)) for name in _fields(type(device))}


@cache
def _fields(kind: type[attrs.AttrsInstance]) -> tuple[str, ...]:
    # The class is asked once: devices are saved for each snapshot.
    return tuple(field.name for field in attrs.fields(kind) if field.metadata != WIRE)


def set_state(device: attrs.AttrsInstance, state: DeviceState) -> None:
    """Puts a state taken by `state_of` back; the state may be put back again later. KeyError if it is another's."""
    for name in _fields(type(device)):
        value = state[name]
        setattr(device, name, _restored(getattr(device, name), value))


def _plain(value: Any) -> Plain:  # noqa: ANN401 - whatever a device's field is
    if attrs.has(type(value)):
        return state_of(value)
    if isinstance(value, dict):
        return dict(value)
    # A file's numbers have 64 bits.
    if isinstance(value, int) and value >> _WIDTH not in {0, -1}:
        return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)  # a set of vectors
    return tuple(map(_plain, value)) if isinstance(value, list | tuple | deque) else value


def _restored(now: Any, saved: Any) -> Any:  # noqa: ANN401 - as above
    """What a field becomes, given what it is: parts of a device stay the objects that they are."""
    if attrs.has(type(now)):
        set_state(now, saved)
        return now
    if isinstance(now, dict):
        return dict(saved)
    if isinstance(now, int) and isinstance(saved, bytes):
        return int.from_bytes(saved, "little", signed=True)
    # Parts that are devices themselves keep their identity: wires between them stay good.
    if isinstance(now, list | tuple | deque):
        return type(now)(map(_restored, now, saved) if any(attrs.has(type(each)) for each in now) else saved)
    return saved


class PortBus:
    """All devices of a machine, by port; also the keeper of their state for snapshots."""

    def __init__(self, devices: Iterable[PortDevice]) -> None:
        self._devices = tuple(devices)
        self._by_port = {port: device for device in self._devices for port in device.ports}

    def read(self, port: int, size: int) -> int:
        """Reads ``size`` (1, 2 or 4) bytes from ``port`` upwards, lowest port in the lowest byte."""
        value = 0
        for offset in range(size):
            # Addresses wrap at 64 Ki, as the 16 address lines do.
            device = self._by_port.get(port + offset & 0xFFFF)
            byte = 0xFF if device is None else device.read(port + offset & 0xFFFF) & 0xFF
            value |= byte << 8 * offset
        return value

    def write(self, port: int, size: int, value: int) -> None:
        """Writes the ``size`` (1, 2 or 4) low bytes of ``value`` to ``port`` upwards."""
        for offset in range(size):
            device = self._by_port.get(port + offset & 0xFFFF)
            if device is not None:
                device.write(port + offset & 0xFFFF, value >> 8 * offset & 0xFF)

    def save(self) -> tuple[DeviceState, ...]:
        """The state of every device, for a machine snapshot."""
        return tuple(state_of(device) for device in self._devices)

    def load(self, state: tuple[DeviceState, ...]) -> None:
        """Puts a state taken by `save` back."""
        for device, saved in zip(self._devices, state, strict=True):
            set_state(device, saved)
