"""Settings of the backends' platforms as pytest's command line and a test's marker give them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import attrs

from pvops_core.backends.choices import choices_for, parse_choices, settings_of
from pvops_core.backends.settings import no_setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pvops_core.backends import Backend


@attrs.frozen
class Choices:
    """What is chosen of one backend's platform for one test.

    Attributes:
        settings: name and text of each setting.
        why_not: why the test cannot be run with them; empty if it can.
    """

    settings: tuple[tuple[str, str], ...] = ()
    why_not: str = ""

    def options(self) -> str:
        """Options of pytest for the same again."""
        return "".join(f" --pvops-set {shlex.quote(f'{name}={text}')}" for name, text in self.settings)


def choices_of(
    names: Iterable[str], given: Iterable[str], marked: Mapping[str, Any], backends: Mapping[str, Backend]
) -> dict[str, Choices]:
    """The choices for each backend that a test is run on.

    Args:
        names: those backends.
        given: settings of the command line, as ``NAME=VALUE``: for those that have them.
        marked: settings of the test's marker: backends that have them not all are left out.
        backends: all that are loaded.

    Raises:
        UsageError: no backend has such a setting, or one of those to be tested does not allow the value.
    """
    wanted = {name: {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
              for name, value in marked.items()}  # fmt: skip
    chosen = {**parse_choices(given), **wanted}
    there = {name: settings_of(backend, backends) for name, backend in backends.items()}
    known = set().union(*there.values())
    for name, text in chosen.items():
        if name not in known:
            raise no_setting(name, text, known)
    found = {}
    for name in names:
        own = choices_for([name], {key: text for key, text in chosen.items() if key in there[name]}, backends)[name]
        lacking = sorted(wanted.keys() - own.keys())
        found[name] = Choices(tuple(own.items()), f"has no setting {', '.join(lacking)}" if lacking else "")
    return found
