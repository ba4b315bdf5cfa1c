"""What becomes of defects, masks and other scales on the way to the patches."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from dvlae.config.settings import PatchSettings
from dvlae.data.defects import measure_scale
from dvlae.data.defects.checks import write_masks
from dvlae.data.defects.masks import PackedMask
from dvlae.data.defects.seen import SeenScale
from dvlae.data.manifest import read_manifest, write_manifest
from dvlae.data.patches import extract_patches
from dvlae.system.errors import UserError


def extract(folder, tmp_path, **settings):
    """Return the description and both arrays."""
    extract_patches(folder, tmp_path / "patches", PatchSettings(**{"patch_size": 16} | settings))
    description = json.loads((tmp_path / "patches" / "patches.json").read_text())
    return description, *(tifffile.memmap(tmp_path / "patches" / f"{n}.tif", mode="r") for n in ("train", "val"))


def window(corner, size):
    """Return the slices of a patch, one for each spatial axis."""
    return tuple(slice(first, first + side) for first, side in zip(corner, size, strict=True))


def cells(seed, shape=(80, 80)):
    return np.random.default_rng([5, seed]).poisson(200, (1, *shape)).astype(np.float32)


def with_hot(image, *places, value=65535):
    image = image.copy()
    image.flat[list(places)] = value
    return image


def read_masks(tmp_path):
    return tuple(tifffile.memmap(tmp_path / "patches" / f"{name}_mask.tif", mode="r") for name in ("train", "val"))


def test_hot_pixels_are_filled_in_left_out_and_counted(tmp_path, images_folder, caplog):
    clean = {str(i): cells(i) for i in range(4)}
    hot = {name: with_hot(image, 1000, 3000) for name, image in clean.items()}
    description, train, _ = extract(images_folder(**hot), tmp_path)
    train_mask, _ = read_masks(tmp_path)
    assert train_mask.dtype == np.uint8 and train_mask.shape == train.shape
    assert set(description["sha256"]) == {"train", "train_mask", "val", "val_mask"}
    assert description["found"]["hot"] == dict.fromkeys(clean, 2)
    for patch, mask, (name, *corner) in zip(train, train_mask, description["sources"]["train"], strict=True):
        cut = (slice(None), *window(corner, description["patch_size"]))
        assert np.array_equal(mask == 0, (hot[name] == 65535)[cut])
        assert np.array_equal(patch[mask == 1], clean[name][cut][mask == 1])
        assert np.abs(patch[mask == 0] - 200).max(initial=0) < 30
    counted = train[train_mask == 1]
    assert description["mean"] == pytest.approx([counted.mean(dtype=np.float64)])
    assert description["std"] == pytest.approx([counted.std(dtype=np.float64)])
    assert description["step"] == [1]
    assert "8 hot pixel values in 4 of 4 images: left out of the training, and filled in" in caplog.text


def test_each_kind_of_pixels_is_said_with_what_becomes_of_it(tmp_path, images_folder, caplog):
    caplog.set_level("INFO")
    images = {str(i): cells(i) for i in range(3)}
    images["1"] = (16 * images["1"]).clip(0, 3477)
    extract(images_folder(**images), tmp_path)
    saturated = np.count_nonzero(images["1"] == 3477)
    assert f"patches: {saturated} saturated pixel values in 1 of 3 images: left out of the normalisation" in caplog.text
    assert "masked" not in caplog.text and "hot" not in caplog.text
    caplog.clear()
    folder = images_folder(**{name: cells(int(name)) for name in images})
    for row in (rows := read_manifest(folder))[:2]:
        write_masks(folder / "mask" / f"{row.name}.tif", [PackedMask.pack(np.arange(80) < 70 * np.ones((80, 1)))])
    write_manifest(folder, [replace(row, mask=folder / "mask" / f"{row.name}.tif") for row in rows[:2]] + rows[2:])
    extract(folder, tmp_path)
    assert "patches: 1600 masked pixel values in 2 of 3 images: left out of the training" in caplog.text
    assert "saturated" not in caplog.text


def test_large_images_become_the_same_patches_in_bands(tmp_path, images_folder, small_bands):
    folder = images_folder(**{name: with_hot(cells(i, (160, 90)), 1000, 9000) for i, name in enumerate("abc")})
    whole, *_ = extract(folder, tmp_path)
    small_bands()
    parts, *_ = extract(folder, tmp_path)
    assert parts["sha256"] == whole["sha256"] and parts["found"] == whole["found"]
    assert parts["mean"] == whole["mean"] and parts["seen"]["noise"] == whole["seen"]["noise"]


def test_without_defects_there_is_no_mask(tmp_path, images_folder):
    extract(images_folder(a=cells(0), b=cells(1)), tmp_path)
    assert sorted(path.name for path in (tmp_path / "patches").iterdir()) == ["patches.json", "train.tif", "val.tif"]


def test_saturated_pixels_count_in_the_loss_only(tmp_path, images_folder):
    images = {str(i): (16 * cells(i)).clip(0, 3477) for i in range(3)}
    description, train, _ = extract(images_folder(**images), tmp_path)
    assert set(description["sha256"]) == {"train", "val"}
    assert description["mean"] == pytest.approx([train[train < 3477].mean(dtype=np.float64)])
    assert description["step"] == [16]
    assert (train == 3477).any()


def test_glaring_pixels_do_not_count_at_all(tmp_path, images_folder):
    clean, images = {str(i): 16 * cells(i) for i in range(3)}, {}
    for name, image in clean.items():
        images[name] = image.copy()
        images[name][:, 20:40, 20:50] = 65535
    description, train, _ = extract(images_folder(**images), tmp_path)
    mask, _ = read_masks(tmp_path)
    assert description["found"]["glaring"] == dict.fromkeys(images, 600)
    assert train.max() < 65535
    assert description["mean"] == pytest.approx([train[mask == 1].mean(dtype=np.float64)])
    assert description["step"] == [16]


@pytest.mark.parametrize(
    ("odd", "problem"),
    [
        (np.zeros((1, 80, 80)), "blank"),
        ((300 * cells(9)).clip(0, 52500), "overexposed"),
        (150 * cells(9), "scale"),
    ],
)
def test_an_image_that_would_decide_for_the_others_is_left_out_and_named(tmp_path, images_folder, caplog, odd, problem):
    rest = {str(i): cells(i) for i in range(3)}
    description, train, val = extract(images_folder(**rest, odd=odd), tmp_path)
    assert description["found"]["left_out"] == {"odd": problem}
    assert "odd" in caplog.text
    alone, *patches = extract(images_folder(**rest), tmp_path)
    assert all(np.array_equal(a, b) for a, b in zip((train, val), patches, strict=True))
    assert all(alone[name] == description[name] for name in ("mean", "std", "step", "seen", "sources"))


def test_images_that_are_all_blank_are_refused(tmp_path, images_folder):
    with pytest.raises(UserError, match="found no image to learn from: a, b"):
        extract(images_folder(a=np.zeros((1, 40, 40)), b=np.ones((1, 40, 40))), tmp_path)


def test_a_channel_that_is_constant_everywhere_is_refused(tmp_path, images_folder):
    image = np.concatenate([cells(0, (40, 40)), np.zeros((1, 40, 40))])
    with pytest.raises(UserError, match=r"channel 1 is constant in all images, .* `channel`"):
        extract(images_folder(a=image), tmp_path)


def test_mixed_gains_are_named_and_can_be_rescaled(tmp_path, images_folder, caplog):
    images = images_folder(**{f"{depth} {i}": cells(i) * 2**depth for i in range(4) for depth in (0, 8)})
    description, *_ = extract(images, tmp_path)
    assert "the noise of 8 0, 8 1, 8 2, 8 3 differs" in caplog.text and "training.rescale" in caplog.text
    seen = SeenScale.from_json(description["seen"])
    assert seen.includes(measure_scale(cells(5))) and not seen.includes(measure_scale(256 * cells(5)))
    caplog.clear()
    description, train, _ = extract(images, tmp_path, rescale=True)
    assert set(description["found"]["rescaled"]) == {f"8 {i}" for i in range(4)}
    assert train.std() == pytest.approx(cells(0).std(), rel=0.1)
    assert "differs" not in caplog.text


def test_the_patches_are_limited_and_spread_over_all_images(tmp_path, images_folder):
    images = images_folder(**{str(i): cells(i, (160, 160)) for i in range(10)})
    description, train, val = extract(images, tmp_path, max_patch_pixels=2**16)
    assert train[:, 0].size + val[:, 0].size <= 2**16
    assert len({source[0] for source in description["sources"]["train"]}) == 9
    whole, *_ = extract(images, tmp_path)
    assert {tuple(s) for s in description["sources"]["train"]} < {tuple(s) for s in whole["sources"]["train"]}


def test_the_description_says_what_was_seen(tmp_path, images_folder):
    description, train, _ = extract(images_folder(**{str(i): cells(i) for i in range(4)}), tmp_path)
    seen = description["seen"]
    assert seen["means"][0] == pytest.approx([200, 200], abs=2)
    assert seen["noise"][0] == pytest.approx([14, 14], abs=1)
    assert seen["levels"][0] == pytest.approx(np.quantile(train, [0.01, 0.99]), abs=3)
