from pathlib import Path

import numpy as np
import pytest

from dvlae.data.manifest import Image
from dvlae.methods.learned import patches
from dvlae.methods.learned.patches import cut_patches, scale_of
from dvlae.methods.task import NotApplicableError


def cut(shapes, crop=16, block=1):
    images = [Image(str(number), Path("none"), None, (1, *shape)) for number, shape in enumerate(shapes)]
    maps = {image.name: np.full(image.shape, float(image.name), np.float32) for image in images}
    return cut_patches([images[start : start + block] for start in range(0, len(images), block)], maps, crop)


def test_patches_are_twice_as_long_as_a_crop_and_complete_blocks_are_held_out():
    found = cut([(40, 64)] * 6, block=2)
    assert found.crop == (16, 16)
    assert found.train.shape[1:] == (1, 32, 32)
    held_out = set(np.unique(found.validation))
    assert held_out == {0, 1}
    assert set(np.unique(found.train)) == {2, 3, 4, 5}
    assert (found.held_out, found.images) == ("blocks", ["2", "3", "4", "5"])


def test_a_few_small_images_are_left_out():
    found = cut([(40, 64), (8, 64), (64, 40), (64, 64)])
    assert found.crop == (16, 16)
    assert set(np.unique(found.train)) | set(np.unique(found.validation)) == {0, 2, 3}


def test_crops_are_as_short_as_most_images():
    assert cut([(10, 64)] * 3).crop == (10, 16)
    assert cut([(10, 64), (64, 10)], crop=32).crop == (10, 10)


def test_patches_that_memory_does_not_suffice_for_are_left_out_evenly(monkeypatch):
    monkeypatch.setattr(patches, "MAX_VALUES", 4 * 32 * 32)
    found = cut([(32, 32)] * 21)
    assert len(found.train) == 4
    assert found.train[0].max() < 3 and found.train[-1].min() > 18


def test_a_constant_channel_is_a_reason():
    with pytest.raises(NotApplicableError, match="channel 1 is constant"):
        scale_of(np.stack([np.random.default_rng(0).normal(size=(3, 8)), np.ones((3, 8))], axis=1))
