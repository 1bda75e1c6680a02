"""Features and bugs of a kernel's processors, where its types say they are."""

from __future__ import annotations

import pytest

from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.patching.altinstructions.alternatives import ALWAYS
from pvops_core.patching.altinstructions.capabilities import capability_words, feature_names, read_capabilities
from pvops_core.testing.images import ElfBuilder
from tests.patching.altinstructions.typed import typed


def test_features_are_read_where_the_types_say() -> None:
    image = typed(24, 2, {4: "tsc", 22 * 32 + 1: "f00f"})
    assert capability_words(image) == (8, 24)
    head = bytearray(8 + 4 * 24)
    head[8], head[8 + 4 * 22] = 1 << 4, 1 << 1
    assert read_capabilities(image, bytes(head)) == {4, 22 * 32 + 1}
    names = feature_names(image)
    assert (names[4], names[22 * 32 + 1], names[ALWAYS]) == ("tsc", "bug:f00f", "always")
    with pytest.raises(ImageError, match="features end at 104"):
        read_capabilities(image, bytes(head[:-1]))


def test_a_kernel_without_types_does_not_say_where_its_features_are() -> None:
    builder = ElfBuilder()
    builder.text(".text", bytes(16))
    image = load_image(builder.build())
    assert feature_names(image)[ALWAYS] == "always"
    with pytest.raises(ImageError, match="does not say where the features are"):
        read_capabilities(image, bytes(512))
