"""Settings as a user chooses them: each backend gets those that it has."""

from __future__ import annotations

import pytest

from pvops_core.backends.choices import choices_for, parse_choices
from pvops_core.errors import UsageError
from tests.backends.settable import BACKENDS


@pytest.mark.parametrize(
    ("texts", "told"),
    [(["rtc"], "'rtc' is not NAME=VALUE"), (["=5"], "is not NAME"), (["a=1", "a=2"], "given twice: '1' and '2'")],
)
def test_what_is_not_name_and_value_is_refused(texts: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_choices(texts)
    assert parse_choices(["a=b=c", "d="]) == {"a": "b=c", "d": ""}


def test_each_backend_gets_the_settings_that_it_has() -> None:
    chosen = choices_for(["native", "xen"], {"rtc": "7", "event_channels": "64"}, BACKENDS)
    assert chosen == {"native": {"rtc": "7"}, "xen": {"rtc": "7", "event_channels": "64"}}
