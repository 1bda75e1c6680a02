"""Platforms as API 1 had them: one class for the built-in guest, one for kernels, options as text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from pvops_core import backends
from pvops_core.backends import Settings
from pvops_core.backends.settings import EPOCH, declared
from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from pvops_core.guest import Guest
    from pvops_core.guests import BuiltinGuest, Kernel
    from pvops_core.machine import Machine

API: Final = 1
"""What ``API`` was then."""


class Texts(Mapping[str, str]):
    """What a platform of API 1 is given as its options: a mapping of texts that is a platform's settings besides."""

    _texts: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self._texts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def put(self, texts: Mapping[str, str]) -> None:
        """Take over texts."""
        # Settings are frozen.
        object.__setattr__(self, "_texts", {**getattr(self, "_texts", {}), **texts})


def texts_for(kind: type[Settings]) -> type[Settings]:
    """Settings of a kind as texts. What it declares is read so; any other name is the platform's own affair."""

    class Chosen(kind, Texts):  # type: ignore[misc, valid-type]
        @classmethod
        def read(cls, given: Mapping[str, str], **known: Any) -> Chosen:  # noqa: ANN401 - fields
            there = {each.name for each in declared(cls)}
            made: Chosen = super().read({name: text for name, text in given.items() if name in there}, **known)
            made.put({**given, **{name: str(value) for name, value in known.items()}})
            return made

    return Chosen


def epoch(options: Mapping[str, str]) -> int:
    """What the CMOS clock shows at the start, in seconds since 1970; UsageError if the option is no number."""
    text = options.get("rtc", str(EPOCH))
    if not text.isdecimal():
        raise UsageError(f"option rtc={text!r} is not a number of seconds since 1970")
    return int(text)


class OldWays:
    """What a platform of API 1 finds on itself, whatever it derives from."""

    def __getattr__(self, name: str) -> object:
        if name == "options":
            return self.settings
        if name == "kernel":
            return self.guest
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class Surroundings(OldWays, backends.Platform):
    """What the two kinds of platform had in common."""

    settings_class = texts_for(Settings)

    def __init__(self, machine: Machine, options: Mapping[str, str], guest: Guest | None = None) -> None:
        settings: Any = options
        if not isinstance(settings, Settings):
            known = {"memory": int(options.get("memory", "0"))}
            settings = self.settings_class.read({**options}, **known)
        super().__init__(machine, guest, settings)  # type: ignore[arg-type]  # a mere mixin has no guest

    @abstractmethod
    def build(self) -> None:
        """Load the guest."""


class Platform(Surroundings):
    """Surroundings of the built-in guest."""

    loaders = {"builtin": backends.Platform.build}  # noqa: RUF012 - as ClassVar in the base

    def __init__(self, machine: Machine, guest: BuiltinGuest, options: Mapping[str, str]) -> None:
        super().__init__(machine, options, guest)


class KernelPlatform(Surroundings):
    """Surroundings of a real kernel."""

    loaders = {"kernel": backends.Platform.build}  # noqa: RUF012 - likewise

    def __init__(self, machine: Machine, kernel: Kernel, options: Mapping[str, str]) -> None:
        super().__init__(machine, options, kernel)
