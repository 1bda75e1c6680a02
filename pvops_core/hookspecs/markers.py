"""The markers that make a function a hook spec or a method an implementation of one."""

from __future__ import annotations

import pluggy

PROJECT = "pvops"
"""The name that specs and implementations share, in pluggy's sense."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class HookDeprecationWarning(FutureWarning):
    """A hook, or an argument of one, that a backend uses and that will go: what to use, and until when it stays.

    A spec is marked by ``@hookspec(warn_on_impl=HookDeprecationWarning("..."))``, or ``warn_on_impl_args`` with the
    argument's name; whoever implements it is warned when the backend is loaded.
    """
