"""The markers that make a function a hook spec or a method an implementation of one."""

from __future__ import annotations

import pluggy

PROJECT = "pvops"
"""The name that specs and implementations share, in pluggy's sense."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
