"""The errno that stands for an error."""

from __future__ import annotations

import errno

import pytest

from pvops_core.errors import MachineError, PvopsError
from pvops_core.livepatch.errors import LivepatchError, PayloadError, errno_of, errno_text


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (LivepatchError("no"), errno.EINVAL),
        (LivepatchError("no", errno=errno.EBUSY), errno.EBUSY),
        (PayloadError("no", "file", None, "field", errno.ENOENT), errno.ENOENT),
        (MachineError("no"), errno.EINVAL),
    ],
)
def test_every_error_has_one_and_those_of_live_patching_tell_it(error: PvopsError, number: int) -> None:
    assert errno_of(error) == number
    if not isinstance(error, MachineError):
        assert errno_text(number) in str(error)


def test_a_number_is_told_by_name_and_words() -> None:
    assert errno_text(errno.EBUSY).startswith("-EBUSY (")
    assert errno_text(99999).startswith("-99999 (")
