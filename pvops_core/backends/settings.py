"""A platform's settings: what a user may choose of it, each declared once with its type, default, range and help.

A platform names a class of its own, ``settings_class = MySettings``, which derives from :class:`Settings`::

    @attrs.frozen(kw_only=True)
    class MySettings(Settings):
        channels: int = setting(64, "event channels of the guest", least=2, most=4096)

What several platforms have should have one name, one default and one meaning on all: :func:`clock_start`,
:func:`cpu_model`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, get_type_hints

import attrs

from pvops_core.backends.findings import ListedSetting
from pvops_core.errors import UsageError, unknown
from pvops_core.machine.cpu.model.cpumodel import FORM, MAX, cpu_features

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

EPOCH: Final = 1_186_704_000
"""2007-08-10, what clocks show at the start unless told otherwise: the same in every run."""
_HELP: Final = "pvops help"
_KINDS: Final = {int: "a number", bool: "yes or no", str: "a word"}
_WORDS: Final = {
    "1": True,
    "yes": True,
    "true": True,
    "on": True,
    "0": False,
    "no": False,
    "false": False,
    "off": False,
}


@attrs.frozen
class Allowed:
    """What a setting may be.

    Attributes:
        least: smallest number.
        most: largest number.
        choices: all values there are; empty where any will do.
        form: how a text is made up, where the three above do not say; empty where they do.
        check: ValueError, with the reason, for a text that is not of that form.
    """

    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] = ()
    form: str = ""
    check: Callable[[str], object] | None = None

    def __bool__(self) -> bool:
        return bool(self.choices or self.form) or self.least is not None or self.most is not None

    def __str__(self) -> str:
        if self.choices:
            return " or ".join(choice or "nothing" for choice in self.choices)
        if self.form:
            return self.form
        least = "" if self.least is None else f"from {self.least}"
        return f"a number {least}{'' if self.most is None else f' to {self.most}'}".rstrip()

    def __contains__(self, value: object) -> bool:
        if isinstance(value, int) and not isinstance(value, bool):
            return (self.least is None or self.least <= value) and (self.most is None or value <= self.most)
        return not self.choices or value in self.choices


def setting(
    default: Any,  # noqa: ANN401 - as wide as attrs' own
    help: str,
    *,
    least: int | None = None,
    most: int | None = None,
    choices: tuple[str, ...] = (),
    form: str = "",
    check: Callable[[str], object] | None = None,
) -> Any:  # noqa: ANN401 - so that the field keeps the type it is declared with
    """A field of a :class:`Settings` that users may set.

    Args:
        default: what it is unless set.
        help: a line for users: what it is, with its unit.
        least: smallest number allowed.
        most: largest number allowed.
        choices: all words allowed.
        form: how a text is made up, for users.
        check: raises ValueError, with the reason, for a text that is not allowed.
    """
    return attrs.field(default=default, metadata={_HELP: help, Allowed: Allowed(least, most, choices, form, check)})


def clock_start(most: int) -> Any:  # noqa: ANN401 - likewise
    """The field ``rtc``, by which every platform that has a clock lets users set it.

    Args:
        most: the latest date that the platform's clock can show, in seconds since 1970.
    """
    return setting(EPOCH, "date of the guest's clock at the start, in seconds since 1970 (UTC)", least=0, most=most)


def cpu_model() -> Any:  # noqa: ANN401 - likewise
    """The field ``cpu``: which features ``cpuid`` shows. The platform gives them to ``Machine.features``."""
    text = "processor: the features that cpuid shows; what it does not show the processor can do all the same"
    return setting(MAX, text, form=FORM, check=cpu_features)


@attrs.frozen(kw_only=True)
class Settings:
    """What every platform is told beside its guest.

    Attributes:
        memory: bytes of the guest's memory; 0: as much as the machine has for it.
    """

    memory: int = 0

    @classmethod
    def read(cls, given: Mapping[str, str], **known: Any) -> Self:  # noqa: ANN401 - fields
        """The settings from what a user wrote.

        Args:
            given: name to text.
            **known: fields that are no user's to set.

        Raises:
            UsageError: a name that is not declared, or a value that is not allowed.
        """
        there = {each.name: each for each in declared(cls)}
        for name in given:
            if name not in there:
                raise no_setting(name, given[name], there)
        chosen: dict[str, Any] = {name: there[name].read(text) for name, text in given.items()}
        return cls(**known, **chosen)


@attrs.frozen
class Declared:
    """One setting as a user sees it.

    Attributes:
        name: its name.
        type: ``int``, ``bool`` or ``str``.
        default: what it is unless set.
        help: what it is.
        allowed: what it may be.
    """

    name: str
    type: type
    default: int | bool | str
    help: str
    allowed: Allowed

    def read(self, text: str) -> int | bool | str:
        """The value that a text stands for.

        Raises:
            UsageError: it is none of this type, or not allowed.
        """
        try:
            value = self._typed(text)
        except (ValueError, KeyError):
            raise self._wrong(text) from None
        if value not in self.allowed:
            raise self._wrong(text)
        if self.allowed.check is not None:
            try:
                self.allowed.check(text)
            except ValueError as reason:
                raise UsageError(f"setting {self.name}={text!r}: {reason}; {self.allowed} is allowed") from None
        return value

    def listed(self) -> ListedSetting:
        """What those are told who list settings."""
        may_be = self.allowed
        return ListedSetting(
            name=self.name,
            type=self.type.__name__,  # type: ignore[arg-type]  # one of the three
            default=self.default_text,
            help=self.help,
            least=may_be.least,
            most=may_be.most,
            choices=tuple(may_be.choices),
            allowed=self.may_be,
        )

    @property
    def default_text(self) -> str:
        """The default as a user would write it."""
        return {True: "yes", False: "no"}[self.default] if isinstance(self.default, bool) else str(self.default)

    @property
    def may_be(self) -> str:
        """What is allowed, for users."""
        return str(self.allowed) if self.allowed else _KINDS[self.type]

    def _typed(self, text: str) -> int | bool | str:
        if self.type is bool:
            return _WORDS[text.lower()]
        return int(text, 0) if self.type is int else text

    def _wrong(self, text: str) -> UsageError:
        return UsageError(f"setting {self.name}={text!r}: {self.may_be} is allowed")


def declared(kind: type[Settings]) -> Iterator[Declared]:
    """The settings of a platform that users may set, in the order of their declaration."""
    types = get_type_hints(kind)
    for field in attrs.fields(kind):
        if _HELP in field.metadata:
            hint = field.metadata
            yield Declared(field.name, types[field.name], field.default, hint[_HELP], hint[Allowed])


def no_setting(name: str, text: str, there: Iterable[str]) -> UsageError:
    """The error for a setting that is not there, with those that are."""
    return UsageError(f"setting {name}={text!r}: {unknown('setting', name, sorted(there))}")
