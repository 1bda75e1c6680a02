"""What a backend must be before anything of it is used."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Collection
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pluggy

from pvops_core import hookspecs
from pvops_core.backends.backend import API, OLDEST_API, Backend
from pvops_core.backends.hooks import Marked, marked
from pvops_core.backends.loading.soundness import Soundness
from pvops_core.backends.platform import Platform
from pvops_core.backends.settings import Settings, declared
from pvops_core.errors import PatchError
from pvops_core.hookspecs.specs import specs
from pvops_core.kinds import MachineKind
from pvops_core.patching.altinstructions.alternatives import FEATURES
from pvops_core.patching.patchlets import Patchlet, check_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.backends.finding.found import Found

RESERVED: Final = {
    "kernel": "an op is switched by it to the kernel's own function",
    "none": "it stands for an op that no backend has",
}
"""Names that mean something else where a backend is named, and what."""

_GIVES_NO_RESULT: Final = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
_NAME = re.compile(r"^[a-z][a-z0-9_-]*$")


def check_backend(found: Found, declared: object) -> Backend:
    """Check what an entry point named.

    Args:
        found: the plugin, for the error.
        declared: the object.

    Returns:
        The object, which is a sound backend. Whether its base exists is not looked at here.

    Raises:
        PluginError: the first thing that is wrong with it, with the hook if it is one's.
    """
    if not isinstance(declared, Backend):
        raise found.error(f"{found.value} is a {type(declared).__name__}, not a pvops_core.backends.Backend")
    _check_api(found, declared.api)
    check = _Check(found, declared)
    check.identity()
    check.parts()
    before = Soundness(found, declared)
    if not before.sound:
        check.hooks()
        check.slots()
        check.patchlets()
        before.keep()
    return declared


def _check_api(found: Found, api: object) -> None:
    written, span = f"it was written for plugin API {api!r}", f"this pvops has API {API}"
    # True would pass for 1.
    if not isinstance(api, int) or isinstance(api, bool) or api < 1:
        raise found.error(f"{written}, which is no number of one; {span}")
    if api > API:
        raise found.error(f"{written}; {span}: a newer pvops-core is needed")
    if api < OLDEST_API:
        raise found.error(
            f"{written}; {span} and knows them from {OLDEST_API} on: a newer {found.distribution} is needed"
        )


class _Bound:
    """The implementations of an ops class as its objects have them: a function from elsewhere has no self either."""

    def __init__(self, ops: type) -> None:
        for one in marked(ops):
            function: Any = getattr(one.value, "__func__", one.value)
            setattr(self, one.attribute, function if isinstance(one.value, staticmethod) else MethodType(function, ops))


class _Check:
    def __init__(self, found: Found, backend: Backend) -> None:
        self.found = found
        self.backend = backend

    def fail(self, message: str, hook: str = "") -> NoReturn:
        raise self.found.error(message, hook)

    def identity(self) -> None:
        backend = self.backend
        if not isinstance(backend.name, str) or not _NAME.match(backend.name):
            self.fail(f"its name {backend.name!r} is not lower-case letters, digits, '-' and '_'")
        if backend.name in RESERVED:
            self.fail(f"its name {backend.name!r} is reserved: {RESERVED[backend.name]}")
        if self.found.name and backend.name != self.found.name:
            self.fail(f"it calls itself {backend.name!r}, but its entry point is {self.found.name!r}")
        if not isinstance(backend.description, str):
            self.fail(f"its description is a {type(backend.description).__name__}, not text")
        if backend.base is not None and not isinstance(backend.base, str):
            self.fail(f"its base is a {type(backend.base).__name__}, not the name of a backend")

    def parts(self) -> None:
        backend = self.backend
        if backend.ops is not None:
            self.takes(backend.ops, "ops", "the Environment", 1)
        for field in ("platform", "kernel_platform"):
            self.platform(field)
        for method in ("slots", "features"):
            if backend.kernel is not None and not callable(getattr(backend.kernel, method, None)):
                self.fail(f"its kernel has no method {method!r}")
        self.collection("kinds", MachineKind)
        self.collection("capabilities", str)
        self.collection("forces", str)
        for field, kind in (("nops", str), ("empty", str), ("patchlets", Patchlet)):
            self.collection(field, kind)
        for name in sorted(backend.forces):
            if name not in FEATURES:
                self.fail(f"it forces {name!r}, which is no CPU feature that can be forced: {', '.join(FEATURES)}")
        if (backend.platform or getattr(backend, "kernel_platform", None)) is not None and not backend.kinds:
            self.fail("it has a platform, but names no kind of machine in kinds")

    def platform(self, field: str) -> None:
        """Check a class of platforms; ``kernel_platform`` is there in backends of API 1 (``pvops_core.api1``) alone."""
        platform = getattr(self.backend, field, None)
        if platform is None:
            return
        self.takes(platform, field, "machine, guest and settings", 3)
        what = f"its {field} {platform.__name__}"
        if not issubclass(platform, Platform):
            self.fail(f"{what} is not a subclass of Platform")
        if missing := sorted(getattr(platform, "__abstractmethods__", ())):
            self.fail(f"{what} lacks {', '.join(missing)}")
        if not platform.loaders:
            self.fail(f"{what} has no loaders, so it can run no guest")
        if not (isinstance(platform.settings_class, type) and issubclass(platform.settings_class, Settings)):
            self.fail(f"settings_class of {what} is no class of Settings")
        for each in declared(platform.settings_class):
            if each.type not in {int, bool, str}:
                self.fail(f"setting {each.name} of {what} is a {each.type}; it can be int, bool or str")
            if each.default not in each.allowed or not isinstance(each.default, each.type):
                self.fail(f"setting {each.name} of {what} has a default that is not allowed: {each.default!r}")

    def takes(self, factory: object, field: str, what: str, number: int) -> None:
        if not isinstance(factory, type):
            self.fail(f"its {field} is a {type(factory).__name__}, not a class")
        try:
            inspect.signature(factory).bind(*[None] * number)
        except (TypeError, ValueError) as error:
            self.fail(f"its {field} {factory.__name__} cannot be made with {what}: {error}")

    def collection(self, field: str, kind: type) -> None:
        value = getattr(self.backend, field)
        if not isinstance(value, Collection) or isinstance(value, str | bytes):
            self.fail(f"its {field} is a {type(value).__name__}, not a set")
        for item in value:
            if not isinstance(item, kind):
                self.fail(f"its {field} has {item!r}, which is not a {kind.__name__}")

    def hooks(self) -> None:
        ops = self.backend.ops
        if ops is None:
            return
        for name in specs():
            # Statically, since a property's getter is the author's code and would run.
            value = inspect.getattr_static(ops, name, None)
            if hasattr(ops, name) and not (callable(value) or hasattr(value, "__get__")):
                self.fail(f"it is a {type(value).__name__} and cannot be called", name)
        taken: dict[str, str] = {}
        for one in marked(ops):
            self.hook(one)
            if one.hook in taken:
                self.fail(f"both {taken[one.hook]} and {one.attribute} implement it", one.hook)
            taken[one.hook] = one.attribute
        self.agrees_with_pluggy(ops)

    def hook(self, one: Marked) -> None:
        if one.hook not in specs():
            close = difflib.get_close_matches(one.hook, specs(), 1)
            self.fail("there is no such hook" + (f"; did you mean {close[0]}?" if close else ""), one.hook)
        function = one.value.__func__ if isinstance(one.value, staticmethod | classmethod) else one.value
        if not inspect.isfunction(function):
            self.fail(f"it is a {type(function).__name__}, not a method", one.hook)
        if one.options.get("wrapper") or one.options.get("hookwrapper"):
            self.fail("an op has one implementation: wrappers have no place", one.hook)
        if any(is_one(function) for is_one in _GIVES_NO_RESULT):
            self.fail("it is a coroutine or a generator, but a hook is called and gives its result", one.hook)
        self.signature(one, function)

    def signature(self, one: Marked, function: Callable[..., object]) -> None:
        parameters = list(inspect.signature(function).parameters.values())
        if not isinstance(one.value, staticmethod):
            if not parameters:
                self.fail("it takes no self", one.hook)
            parameters = parameters[1:]
        spec = specs()[one.hook].arguments
        for parameter in parameters:
            if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
                self.fail(f"argument {parameter} is not a plain one", one.hook)
            if parameter.name not in spec:
                self.fail(f"argument {parameter.name!r} is not one of the hook's: {', '.join(spec)}", one.hook)
            if parameter.default is not parameter.empty:
                self.fail(f"argument {parameter.name!r} has a default, so it would never be passed", one.hook)
        names = [parameter.name for parameter in parameters]
        if spec and names[:1] != [spec[0]]:
            self.fail(f"its first argument must be {spec[0]!r}", one.hook)

    def agrees_with_pluggy(self, ops: type) -> None:
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        for module in hookspecs.MODULES:
            manager.add_hookspecs(module)
        try:
            manager.register(_Bound(ops))
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            self.fail(" ".join(str(error).split()))

    def slots(self) -> None:
        backend = self.backend
        hooks = {one.hook for one in marked(backend.ops)} if backend.ops else set()
        for field in ("nops", "empty"):
            for op in sorted(getattr(backend, field)):
                if op not in specs():
                    self.fail(f"its {field} name an op that does not exist", op)
                if op in hooks:
                    self.fail(f"its ops implement it, but its {field} name it too", op)
        for op in sorted(backend.nops & backend.empty):
            self.fail("both its nops and its empty name it", op)

    def patchlets(self) -> None:
        try:
            check_all(self.backend.patchlets, self.backend.kinds)
        except PatchError as error:
            self.fail(str(error), error.op)
