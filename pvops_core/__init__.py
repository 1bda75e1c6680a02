"""Run, test, patch, switch and compare x86 paravirtualisation backends."""

from pvops_core.api1.finder import install

install()
