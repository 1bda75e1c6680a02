"""Settings as a user gives them, for many backends at once: each goes to those backends that have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.backends.chains import chain, platform_owner
from pvops_core.backends.settings import Declared, declared, no_setting
from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pvops_core.backends.backend import Backend


def parse_choices(texts: Iterable[str]) -> dict[str, str]:
    """Name to text of settings written as ``NAME=VALUE``.

    Raises:
        UsageError: one is not written so, or is there twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (sign and name):
            raise UsageError(f"setting {text!r} is not NAME=VALUE")
        if name in found:
            raise UsageError(f"setting {name} is given twice: {found[name]!r} and {value!r}")
        found[name] = value
    return found


def settings_of(backend: Backend, backends: Mapping[str, Backend]) -> dict[str, Declared]:
    """What users may set of a backend, by name: the settings of the platform in force, its own or its base's."""
    platform = platform_owner(chain(backend, backends)).platform
    return {} if platform is None else {each.name: each for each in declared(platform.settings_class)}


def choices_for(
    names: Iterable[str], given: Mapping[str, str], backends: Mapping[str, Backend]
) -> dict[str, dict[str, str]]:
    """For each named backend the settings that it has of those given.

    Args:
        names: the chosen backends.
        given: name to text.
        backends: all that there are.

    Raises:
        UsageError: a setting that no chosen backend has, or a value that one does not allow.
    """
    there = {name: settings_of(backends[name], backends) for name in names}
    for name, text in given.items():
        owners = [settings[name] for settings in there.values() if name in settings]
        if there and not owners:
            raise no_setting(name, text, set().union(*there.values()))
        for setting in owners:
            setting.read(text)
    return {name: {key: given[key] for key in given if key in settings} for name, settings in there.items()}
