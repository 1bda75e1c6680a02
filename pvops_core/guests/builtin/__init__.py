"""The built-in guest: a small real kernel for each layout, its boot protocol and its report."""

from importlib import import_module

import_module("pvops_core.api1.names").let_call(__name__)
