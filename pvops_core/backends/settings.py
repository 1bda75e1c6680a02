"""A platform's settings: what a user may choose of it, each declared once with its type, default, range and help.

A platform names a class of its own, ``settings = MySettings``, which derives from :class:`Settings`:

    @attrs.frozen(kw_only=True)
    class MySettings(Settings):
        rtc: int = setting(0, "what the clock shows at the start, in seconds since 1970 (UTC)", least=0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, get_type_hints

import attrs

from pvops_core.errors import UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HELP: Final = "pvops help"
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
    """

    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.choices) or self.least is not None or self.most is not None

    def __str__(self) -> str:
        if self.choices:
            return " or ".join(choice or "nothing" for choice in self.choices)
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
) -> Any:  # noqa: ANN401 - so that the field keeps the type it is declared with
    """A field of a :class:`Settings` that users may set.

    Args:
        default: what it is unless set.
        help: a line for users: what it is, with its unit.
        least: smallest number allowed.
        most: largest number allowed.
        choices: all words allowed.
    """
    return attrs.field(default=default, metadata={_HELP: help, Allowed: Allowed(least, most, choices)})


@attrs.frozen(kw_only=True)
class Settings:
    """What every platform is told beside its guest.

    Attributes:
        memory: bytes of the guest's memory; 0: as much as the machine has for it.
    """

    memory: int = 0


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
        return value

    def _typed(self, text: str) -> int | bool | str:
        if self.type is bool:
            return _WORDS[text.lower()]
        return int(text, 0) if self.type is int else text

    def _wrong(self, text: str) -> UsageError:
        kind = {int: "a number", bool: "yes or no", str: "a word"}[self.type]
        return UsageError(f"setting {self.name}={text!r}: {self.allowed or kind} is allowed")


def declared(kind: type[Settings]) -> Iterator[Declared]:
    """The settings of a platform that users may set, in the order of their declaration."""
    types = get_type_hints(kind)
    for field in attrs.fields(kind):
        if _HELP in field.metadata:
            hint = field.metadata
            yield Declared(field.name, types[field.name], field.default, hint[_HELP], hint[Allowed])


def read_settings(kind: type[Settings], given: Mapping[str, str], **known: Any) -> Settings:  # noqa: ANN401 - fields
    """A platform's settings from what a user wrote.

    Args:
        kind: the platform's class of settings.
        given: name to text.
        **known: fields that are no user's to set.

    Raises:
        UsageError: a name that the platform does not have, or a value that it does not allow.
    """
    there = {each.name: each for each in declared(kind)}
    for name in given:
        if name not in there:
            raise unknown("setting", name, list(there))
    chosen: dict[str, Any] = {name: there[name].read(text) for name, text in given.items()}
    return kind(**known, **chosen)
