"""Backends as API 1 declared them: with a platform for the built-in guest and one for kernels."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import attrs

from pvops_core import backends
from pvops_core.api1.names import warn
from pvops_core.api1.platforms import OldWays, Texts, texts_for
from pvops_core.guests import BuiltinGuest, Kernel

if TYPE_CHECKING:
    from pvops_core.guest import Guest
    from pvops_core.machine import Machine

_BUILTIN: Final = BuiltinGuest.boot_protocol
_KERNEL: Final = Kernel.boot_protocol


@attrs.frozen(kw_only=True)
class Backend(backends.Backend):
    """A backend with one platform for the built-in guest and one for kernels.

    Attributes:
        kernel_platform: class of who loads a real kernel and answers its traps; None: the base's, unless this
            backend has a platform of its own, which then cannot boot kernels.
    """

    kernel_platform: type[backends.Platform] | None = None

    def __attrs_post_init__(self) -> None:
        """Tell how a backend is declared now."""
        warn(f"backend {self.name!r}: a Backend of pvops_core.hookspecs", "pvops_core.backends.Backend(api=2, ...)", 4)

    def platform_for(self, boot_protocol: str) -> type[backends.Platform] | None:
        """The one for the guest, so that a session can make it as it makes any; one for the other guest refuses it."""
        if boot_protocol == _KERNEL and self.kernel_platform is not None:
            return _as_today(self.kernel_platform, _KERNEL)
        return self.platform and _as_today(self.platform, _BUILTIN)


@functools.cache
def _as_today(platform: type[backends.Platform], boot_protocol: str) -> type[backends.Platform]:
    """A platform of API 1 that is made of machine, guest and settings, and loads guests of its one protocol."""

    class AsToday(platform, OldWays):  # type: ignore[misc, valid-type]
        def __init__(self, machine: Machine, guest: Guest, settings: Any = None) -> None:  # noqa: ANN401 - two in one
            if isinstance(settings, Texts) and boot_protocol == _BUILTIN:
                settings.put({"cmdline": guest.cmdline})
            super().__init__(machine, guest, settings)

    # Errors name the author's class.
    AsToday.__name__ = AsToday.__qualname__ = platform.__name__
    AsToday.loaders = {boot_protocol: platform.loaders.get(boot_protocol, backends.Platform.build)}
    if not issubclass(platform.settings_class, Texts):
        AsToday.settings_class = texts_for(platform.settings_class)
    return AsToday
