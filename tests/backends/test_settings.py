"""Settings of platforms: declared once, read from text, refused with what is allowed, given to those who have them."""

from __future__ import annotations

import contextlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.backends import Backend, Settings, clock_start, cpu_model, setting
from pvops_core.backends.choices import choices_for, settings_of
from pvops_core.backends.settings import EPOCH, declared
from pvops_core.errors import UsageError
from tests.backends.settable import BACKENDS


@attrs.frozen(kw_only=True)
class Mine(Settings):
    rtc: int = clock_start(most=4_000_000_000)
    cpu: str = cpu_model()
    mode: str = setting("slow", "how it goes", choices=("slow", "fast"))
    quiet: bool = setting(default=False, help="it says less")
    hidden: int = 3


def test_what_users_may_set_is_what_is_declared_so() -> None:
    assert [(each.name, each.type, each.default) for each in declared(Mine)] == [
        ("rtc", int, EPOCH),
        ("cpu", str, "max"),
        ("mode", str, "slow"),
        ("quiet", bool, False),
    ]


def test_texts_become_values_of_the_declared_types() -> None:
    values = Mine.read({"rtc": "0x10", "mode": "fast", "quiet": "Yes", "cpu": "min,+nx"}, memory=5)
    assert values == Mine(memory=5, rtc=16, cpu="min,+nx", mode="fast", quiet=True)
    assert Mine.read({}) == Mine()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("rtc", "noon", "setting rtc='noon': a number from 0 to 4000000000 is allowed"),
        ("rtc", "-1", "setting rtc='-1': a number from 0 to 4000000000 is allowed"),
        ("rtc", "4000000001", "a number from 0 to 4000000000 is allowed"),
        ("rtc", "", "setting rtc=''"),
        ("mode", "fsat", "setting mode='fsat': slow or fast is allowed"),
        ("quiet", "perhaps", "setting quiet='perhaps': yes or no is allowed"),
        ("cpu", "x86-64-v3", "setting cpu='x86-64-v3': the engine has no avx, avx2"),
        ("rtcc", "5", "setting rtcc='5': no setting 'rtcc'; there are cpu, mode, quiet, rtc (did you mean rtc?)"),
        ("memory", "5", "no setting 'memory'"),
        ("hidden", "5", "no setting 'hidden'"),
    ],
)
def test_a_wrong_one_is_refused_with_what_is_allowed(name: str, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        Mine.read({name: text})
    assert told in str(caught.value)


@given(st.sampled_from([each.name for each in declared(Mine)]), st.text())
def test_any_text_is_a_value_that_is_allowed_or_refused(name: str, text: str) -> None:
    with contextlib.suppress(UsageError):
        values = Mine.read({name: text})
        assert isinstance(values, Mine)
        assert 0 <= values.rtc <= 4_000_000_000
        assert isinstance(values.quiet, bool)
        assert values.mode in {"slow", "fast"}


@pytest.mark.parametrize(
    ("names", "given", "told"),
    [
        (["native", "lguest"], {"event_channels": "64"}, "no setting 'event_channels'"),
        (["native", "lguest"], {"rtc": str(1 << 32)}, "from 0 to 4294967295"),
        (["native"], {"rtx": "5"}, "did you mean rtc?"),
    ],
)
def test_what_no_chosen_backend_takes_is_refused(names: list[str], given: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        choices_for(names, given, BACKENDS)
    assert told in str(caught.value)


def test_a_backend_without_a_platform_has_its_bases_settings() -> None:
    mine = Backend(name="mine", api=1, base="xen")
    assert settings_of(mine, {**BACKENDS, "mine": mine}).keys() == settings_of(BACKENDS["xen"], BACKENDS).keys()


@pytest.mark.parametrize("name", ["native", "xen", "lguest"])
def test_the_clock_and_the_processor_have_one_name_on_every_platform(name: str) -> None:
    there = settings_of(BACKENDS[name], BACKENDS)
    assert (there["rtc"].default, there["cpu"].default) == (EPOCH, "max")
    for each in there.values():
        assert each.default in each.allowed
        assert each.help
