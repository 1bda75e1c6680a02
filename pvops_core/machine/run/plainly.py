"""Objects of attrs classes as plain data and back, by the types that their fields declare.

For owners whose state is such objects: a domain, its vCPUs, the entries of their tables. What has one field more is
then saved with it, and what cannot be plain is refused before anything is saved.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable
from functools import cache, reduce
from operator import attrgetter, or_
from typing import Any, Final, Generic, NamedTuple, Optional, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs

T = TypeVar("T", bound=attrs.AttrsInstance)


class Plainly(Generic[T]):
    """Saves objects of a class as plain data, field by field, and makes them of it again.

    Args:
        kind: an attrs class whose fields all are arguments, of plain types, enumerations, such classes, or lists,
            tuples, sets, dictionaries or optional values of those.

    Raises:
        TypeError: a field is something else.
    """

    def __init__(self, kind: type[T]) -> None:
        self._form = _of_class(kind)

    @property
    def type(self) -> Any:  # noqa: ANN401 - what annotations are made of
        """What ``save`` gives, as an annotation."""
        return self._form.type

    def save(self, value: T) -> tuple[Any, ...]:
        """The object's fields in their order, as something that later changes do not touch."""
        assert self._form.save is not None
        saved: tuple[Any, ...] = self._form.save(value)
        return saved

    def load(self, state: tuple[Any, ...]) -> T:
        """An object of what ``save`` gave."""
        assert self._form.load is not None
        loaded: T = self._form.load(state)
        return loaded


class _Form(NamedTuple):
    """How values of a type are saved and loaded; None for both where they are plain and cannot be changed.

    Attributes:
        save: makes plain data of a value.
        load: makes a value of it.
        type: what plain data it is.
    """

    save: Callable[[Any], Any] | None
    load: Callable[[Any], Any] | None
    type: Any


_PLAIN: Final = frozenset({bool, int, float, str, bytes, types.NoneType})


@cache
def _form(kind: Any) -> _Form:  # noqa: ANN401 - a class, or what annotations are made of
    if kind in _PLAIN:
        return _as_it_is(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        types_of_values = (type(each.value) for each in kind)
        return _Form(attrgetter("value"), kind, reduce(or_, types_of_values))
    if isinstance(kind, type) and attrs.has(kind):
        return _of_class(kind)
    return _of_annotation(kind, get_origin(kind), get_args(kind))


def _of_annotation(kind: object, origin: Any, inner: tuple[Any, ...]) -> _Form:  # noqa: ANN401 - as above
    if origin in {Union, types.UnionType} and len(inner) == 2 and inner[1] is types.NoneType:
        return _optional(_form(inner[0]))
    if origin in {list, set} or (origin is tuple and inner[1:] == (...,)):
        return _of_series(origin, _form(inner[0]))
    if origin is tuple and all(_form(each).save is None for each in inner):
        return _as_it_is(tuple.__class_getitem__(tuple(_form(each).type for each in inner)))
    if origin is dict and _form(inner[0]).save is None:
        return _of_dictionary(_form(inner[0]).type, _form(inner[1]), named=inner[0] in {int, str})
    raise TypeError(f"{kind} cannot be saved as plain data")


def _of_class(kind: type[attrs.AttrsInstance]) -> _Form:
    hints = get_type_hints(kind)
    names = [field.name for field in attrs.fields(kind)]
    forms = [_form(hints[name]) for name in names]
    savers = [(name, form.save) for name, form in zip(names, forms, strict=True)]
    loaders = [form.load for form in forms]

    def save(value: object) -> tuple[Any, ...]:
        parts = [(getattr(value, name), each) for name, each in savers]
        return tuple([part if each is None else each(part) for part, each in parts])

    def load(state: tuple[Any, ...]) -> attrs.AttrsInstance:
        return kind(*[part if each is None else each(part) for part, each in zip(state, loaders, strict=True)])

    return _Form(save, load, tuple.__class_getitem__(tuple(form.type for form in forms)))


def _as_it_is(kind: Any) -> _Form:  # noqa: ANN401 - as above
    return _Form(None, None, kind)


def _optional(form: _Form) -> _Form:
    save, load, kind = form
    kind = Optional[kind]  # noqa: UP045 - the operator does not take every annotation
    if save is None or load is None:
        return _as_it_is(kind)
    return _Form(
        lambda value: None if value is None else save(value),
        lambda state: None if state is None else load(state),
        kind,
    )


def _of_series(kind: Callable[..., Any], form: _Form) -> _Form:
    save, load, inner = form
    series = tuple.__class_getitem__((inner, ...))
    if save is None or load is None:
        if kind is tuple:
            return _as_it_is(series)
        # Sets have no order of their own that two runs would share, so that what is saved is sorted.
        return _Form(tuple if kind is list else lambda values: tuple(sorted(values)), kind, series)
    return _Form(lambda values: tuple(map(save, values)), lambda state: kind(map(load, state)), series)


def _of_dictionary(key: Any, form: _Form, *, named: bool) -> _Form:  # noqa: ANN401 - as above
    """Where keys are no names and no numbers, what is saved is the pairs."""
    outer: Callable[..., Any] = dict if named else tuple
    save, load, inner = form
    pair = tuple.__class_getitem__((key, inner))
    kind = dict.__class_getitem__((key, inner)) if named else tuple.__class_getitem__((pair, ...))
    if save is None or load is None:
        return _Form(dict if named else lambda values: tuple(values.items()), dict, kind)
    return _Form(
        lambda values: outer((key, save(value)) for key, value in values.items()),
        lambda state: {key: load(value) for key, value in (state.items() if named else state)},
        kind,
    )
