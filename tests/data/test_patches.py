import hashlib
import json

import numpy as np
import pytest
import tifffile

from dvlae.config.settings import PatchSettings
from dvlae.data.canonical import read_canonical
from dvlae.data.patches import extract_patches, quantisation_step
from dvlae.system.errors import UserError

RANDOM = np.random.default_rng([0])


def random(*shape):
    return RANDOM.normal(100, 20, shape)


def extract(folder, tmp_path, **settings):
    """Return the description and both arrays."""
    extract_patches(folder, tmp_path / "patches", PatchSettings(**{"patch_size": 16} | settings))
    description = json.loads((tmp_path / "patches" / "patches.json").read_text())
    return description, *(tifffile.memmap(tmp_path / "patches" / f"{n}.tif", mode="r") for n in ("train", "val"))


def window(corner, size):
    """Return the slices of a patch, one for each spatial axis."""
    return tuple(slice(first, first + side) for first, side in zip(corner, size, strict=True))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(
    ("a", "b", "crop", "stored"),
    [
        ((70, 80), (40, 33), 16, [32, 32]),
        ((70, 80), (40, 33), [8, 16], [16, 32]),
        ((700,), (65,), 16, [32]),
        ((7, 40, 50), (5, 33, 80), [2, 16, 8], [4, 32, 16]),
        ((7, 40, 50), (3, 33, 80), [3, 16, 16], [3, 32, 32]),
    ],
)
def test_patches_are_what_their_sources_say_and_can_be_memory_mapped(
    tmp_path, images_folder, channels, a, b, crop, stored
):
    images = images_folder(a=random(channels, *a), b=random(channels, *b))
    description, train, val = extract(images, tmp_path, patch_size=crop)
    assert description["patch_size"] == stored
    assert train.dtype == np.float32
    for name, patches in (("train", train), ("val", val)):
        assert patches.shape == (len(description["sources"][name]), channels, *stored)
        for patch, (image, *corner) in zip(patches, description["sources"][name], strict=True):
            whole = read_canonical(images / "noisy" / f"{image}.tif")
            assert np.array_equal(patch, whole[:, *window(corner, stored)])
        file = (tmp_path / "patches" / f"{name}.tif").read_bytes()
        assert description["sha256"][name] == hashlib.sha256(file).hexdigest()


@pytest.mark.parametrize(
    "shapes", [[(70, 80), (33, 100), (64, 64)], [(70,), (33,), (64,)], [(17, 40, 33), (40, 16, 50)]]
)
def test_patches_cover_each_image_wholly(tmp_path, images_folder, shapes):
    shapes = {f"image {i}": shape for i, shape in enumerate(shapes)}
    description, *_ = extract(images_folder(**{n: random(1, *s) for n, s in shapes.items()}), tmp_path)
    size = description["patch_size"]
    for name, shape in shapes.items():
        covered = np.zeros(shape, bool)
        for image, *corner in description["sources"]["train"] + description["sources"]["val"]:
            if image == name:
                assert all(first + side <= length for first, side, length in zip(corner, size, shape, strict=True))
                covered[window(corner, size)] = True
        assert covered.all()


@pytest.mark.parametrize(("side", "stored"), [(100, 32), (30, 30), (16, 16)])
def test_a_patch_is_twice_the_crop_along_each_axis_where_the_smallest_image_allows_it(
    tmp_path, images_folder, side, stored
):
    description, *_ = extract(images_folder(a=random(1, 100, 100), b=random(1, side, 90)), tmp_path)
    assert (description["patch_size"], description["crop_size"]) == ([stored, 32], [16, 16])


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (
            (15, 90),
            "patch_size: found 16 along y, .* 'b' has 15 x 90 pixels, allowed: at most 15 along y, .* \\[y, x\\]",
        ),
        ((90,), "found 128 along x, .* 90 pixels, allowed: at most 90 along x"),
        ((3, 40, 90), "found 16 along z, .* 3 x 40 x 90 pixels, allowed: at most 3 along z"),
    ],
)
def test_an_image_smaller_than_a_crop_is_refused(tmp_path, images_folder, shape, said):
    images = images_folder(a=random(1, *(100 for _ in shape)), b=random(1, *shape))
    with pytest.raises(UserError, match=said):
        extract(images, tmp_path, patch_size=128 if len(shape) == 1 else 16)
    assert not list(tmp_path.glob("*patches*"))


@pytest.mark.parametrize("shape", [(2, 640), (2, 64, 64), (2, 20, 40, 40)])
def test_mean_and_deviation_are_those_of_the_training_patches(tmp_path, images_folder, shape):
    offset = np.array([1e4, -50]).reshape(2, *(1 for _ in shape[1:]))
    images = images_folder(**{str(i): random(*shape) + offset for i in range(5)})
    description, train, _ = extract(images, tmp_path)
    channels = train.swapaxes(0, 1).reshape(2, -1)
    assert description["mean"] == pytest.approx(channels.mean(axis=1, dtype=np.float64))
    assert description["std"] == pytest.approx(channels.std(axis=1, dtype=np.float64))


def test_the_step_is_the_spacing_of_the_grey_values(tmp_path, images_folder):
    grey = np.rint(random(1, 64, 64))
    three = np.concatenate([grey, 2.5 * grey + 1, random(1, 64, 64)])
    description, *_ = extract(images_folder(a=three, b=three), tmp_path)
    assert description["step"] == pytest.approx([1, 2.5, 0])


@pytest.mark.parametrize(
    ("levels", "step"),
    [(np.arange(256) / np.float32(255), 1 / 255), ([0, 3, 9], 3), ([5], 0), (np.sort(random(500)), 0), ([0, 2, 5], 0)],
)
def test_a_step_needs_a_regular_grid(levels, step):
    assert quantisation_step(np.asarray(levels, dtype=np.float64)) == pytest.approx(step, rel=1e-4)


@pytest.mark.parametrize(
    ("count", "block", "fraction", "held"),
    [(10, 1, 0.1, 1), (10, 1, 0.3, 3), (10, 5, 0.1, 5), (10, 3, 0.3, 3), (2, 1, 0.9, 1), (7, 2, 0.01, 2)],
)
def test_validation_takes_whole_blocks_of_neighbours(tmp_path, images_folder, count, block, fraction, held):
    images = images_folder(**{str(i): random(1, 40, 40) for i in range(count)})
    description, *_ = extract(images, tmp_path, block=block, validation_fraction=fraction)
    train, val = ({int(source[0]) for source in description["sources"][name]} for name in ("train", "val"))
    assert description["validation"] == "blocks"
    assert len(val) == held
    assert not {number // block for number in val} & {number // block for number in train}


def test_one_block_is_split_by_patches_instead(tmp_path, images_folder):
    images = images_folder(a=random(1, 160, 160), b=random(1, 160, 160))
    description, train, val = extract(images, tmp_path, block=5, validation_fraction=0.2)
    assert description["validation"] == "patches"
    assert {source[0] for source in description["sources"]["val"]} == {"a", "b"}
    assert (len(train), len(val)) == (40, 10)
    assert not {tuple(s) for s in description["sources"]["val"]} & {tuple(s) for s in description["sources"]["train"]}


def test_images_of_one_patch_each_in_one_block_keep_one_of_them(tmp_path, images_folder):
    description, train, val = extract(images_folder(a=random(1, 32, 32), b=random(1, 32, 32)), tmp_path, block=2)
    assert (description["validation"], len(train), len(val)) == ("patches", 1, 1)


def test_a_single_patch_serves_for_both(tmp_path, images_folder):
    description, train, val = extract(images_folder(a=random(1, 32, 32)), tmp_path)
    assert description["validation"] == "same"
    assert train.shape == val.shape == (1, 1, 32, 32)
    assert np.array_equal(train, val)


def test_only_the_chosen_images_are_cut(tmp_path, images_folder):
    images = images_folder(a=random(1, 40, 40), b=random(1, 40, 40), tiny=random(1, 5, 5))
    description, *_ = extract(images, tmp_path, images=["a", "b"])
    sources = description["sources"]["train"] + description["sources"]["val"]
    assert {source[0] for source in sources} == {"a", "b"}


def test_equal_settings_give_equal_bytes(tmp_path, images_folder):
    images = images_folder(a=random(1, 40, 40), b=random(1, 40, 40))
    extract_patches(images, tmp_path / "one", PatchSettings(patch_size=16))
    extract_patches(images, tmp_path / "two", PatchSettings(patch_size=16))
    for name in ("train.tif", "val.tif", "patches.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


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
    assert "found 8 hot pixel values in 4 of 4 images" in caplog.text


def test_without_defects_there_is_no_mask(tmp_path, images_folder):
    extract(images_folder(a=cells(0), b=cells(1)), tmp_path)
    assert sorted(path.name for path in (tmp_path / "patches").iterdir()) == ["patches.json", "train.tif", "val.tif"]


def test_saturated_pixels_count_in_the_loss_only(tmp_path, images_folder):
    images = {}
    for i in range(3):
        image = 16 * cells(i)
        image[:, 20:40, 20:50] = 65535
        images[str(i)] = image
    description, train, _ = extract(images_folder(**images), tmp_path)
    assert set(description["sha256"]) == {"train", "val"}
    assert description["mean"] == pytest.approx([train[train < 65535].mean(dtype=np.float64)])
    assert description["step"] == [16]
    assert (train == 65535).any()


@pytest.mark.parametrize(
    ("odd", "problem"),
    [
        (np.zeros((1, 80, 80)), "blank"),
        ((300 * cells(9)).clip(0, 40000), "overexposed"),
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
    image = np.stack([random(40, 40), np.zeros((40, 40))])
    with pytest.raises(UserError, match=r"channel 1 is constant in all images, .* `channel`"):
        extract(images_folder(a=image), tmp_path)


def test_mixed_gains_are_named_and_can_be_rescaled(tmp_path, images_folder, caplog):
    images = images_folder(**{f"{depth} {i}": cells(i) * 2**depth for i in range(4) for depth in (0, 8)})
    extract(images, tmp_path)
    assert "the noise of 8 0, 8 1, 8 2, 8 3 differs" in caplog.text and "training.rescale" in caplog.text
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
