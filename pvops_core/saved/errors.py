"""The error of this room."""

from __future__ import annotations

import attrs

from pvops_core.errors import ImageError


@attrs.define(eq=False)
class SavedError(ImageError):
    """A file is no saved session, or is damaged, or is of another session than the one here.

    Attributes:
        saved: what the file says of the field, where it is another session's.
        here: what that is here.
    """

    saved: str = ""
    here: str = ""


def other(path: str, field: str, saved: object, here: object) -> SavedError:
    """The error for what is not the same."""
    shown = [text if len(text := repr(each)) <= _SHOWN else f"{text[:_SHOWN]}…" for each in (saved, here)]
    message = f"the file is of {shown[0]}, and here it is {shown[1]}"
    return SavedError(message, path, field=field, saved=str(saved), here=str(here))


_SHOWN = 200
