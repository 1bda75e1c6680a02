"""What is told of backends and their plugins."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from pvops_core.kinds import MachineKind
from pvops_core.records import JsonRecord


class BrokenPlugin(JsonRecord, frozen=True):
    """A broken plugin.

    Attributes:
        distribution: Distribution, file or folder that it came from.
        version: Its version, if known.
        entry_point: The entry point.
        hook: The hook concerned; empty if none.
        message: What is wrong.
    """

    distribution: str
    version: str
    entry_point: str
    hook: str
    message: str


class ListedSetting(JsonRecord, frozen=True):
    """A setting of a platform.

    Attributes:
        name: Its name.
        type: What its value is.
        default: What it is unless set, as `--set` takes it.
        help: What it is, for a person.
        least: The smallest number allowed; null for none.
        most: The largest number allowed; null for none.
        choices: All words allowed; empty where any will do or `allowed` says more.
        allowed: What is allowed, for a person.
    """

    name: str
    type: Literal["int", "bool", "str"]
    default: str
    help: str
    least: int | None
    most: int | None
    choices: tuple[str, ...]
    allowed: str


class ListedBackend(JsonRecord, frozen=True, kw_only=True):
    """A backend. What is not known without importing it is null or left out.

    Attributes:
        name: Its name.
        distribution: Distribution, file or folder that it comes from.
        version: Version of the distribution.
        entry_point: Entry point of the group `pvops.backends`.
        description: One line on what it is; null where the source does not tell.
        base: The backend that has all ops which it lacks; null for none, or where the source does not tell.
        kinds: Machine kinds that it can be; with `--check`.
        capabilities: Its own capabilities; null where the source does not tell.
        forces: CPU features that it declares to be forced on, its bases' left out; with `--check`.
        hooks: The ops that it implements itself; null where the source does not tell.
        patchlets: Ops that it has code for to be inlined; with `--check`.
        settings: What `--set` takes: the settings of its platform, its own or its base's; null without `--check`.
    """

    name: str
    distribution: str
    version: str
    entry_point: str
    description: str | None
    base: str | None
    kinds: tuple[MachineKind, ...] | UnsetType = UNSET
    capabilities: tuple[str, ...] | None
    forces: tuple[str, ...] | UnsetType = UNSET
    hooks: tuple[str, ...] | None
    patchlets: tuple[str, ...] | UnsetType = UNSET
    settings: tuple[ListedSetting, ...] | None = None


class BackendsResult(JsonRecord, frozen=True):
    """The backends that there are.

    Attributes:
        checked: Whether they were imported and checked.
        backends: The backends.
        errors: Plugins that cannot be used.
        notes: What sound ones declare without effect, and with `--check` ops whose sites of the built-in guest hold
            other code; the same fields.
    """

    checked: bool
    backends: tuple[ListedBackend, ...]
    errors: tuple[BrokenPlugin, ...]
    notes: tuple[BrokenPlugin, ...]
