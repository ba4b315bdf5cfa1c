import hashlib
import json

import numpy as np
import pytest
import tifffile

from dvlae.config.settings import PatchSettings
from dvlae.data.canonical import read_frame, read_noisy
from dvlae.data.manifest import read_manifest
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
            whole = read_frame(images / "noisy" / f"{image}.tif")
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


def test_limits_are_those_of_all_pixels_that_count(tmp_path, images_folder):
    a, b = (np.stack([random(64, 64).round(), random(64, 64).round().clip(0, 110)]) for _ in range(2))
    b[0, 5, 5] = 60_000  # hot
    description, *_ = extract(images_folder(a=a, b=b), tmp_path)
    assert description["limits"] == [[None, None], [None, 110]]


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
            "patch_size: found 16 along y, .* 'b' has 15 x 90 pixels, allowed: at most 8 along y, such as "
            "\\[8, 88\\] for \\[y, x\\], or auto",
        ),
        ((90,), "found 128 along x, .* 90 pixels, allowed: at most 88 along x, such as \\[88\\] for \\[x\\], or auto"),
        ((3, 40, 90), "found 16 along z, .* 3 x 40 x 90 pixels, allowed: at most 3 along z, such as \\[3, 40, 88\\]"),
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


@pytest.mark.parametrize(
    ("shapes", "crop", "said"),
    [
        ([(100, 100), (30, 90)], [24, 64], "training crops have 24 x 64 pixels, as images have 30 x 90"),
        ([(4, 200), (600, 5)], [4, 5], "training crops have 4 x 5 pixels, as images have 4 x 5"),
        ([(5, 64, 80), (7, 64, 90)], [5, 64, 64], "training crops have 5 x 64 x 64 pixels, as images have 5 x 64 x 80"),
        ([(64, 64)], [64, 64], None),
        ([(20,)], [16], "training crops have 16 pixels, as images have 20"),
    ],
)
def test_the_automatic_crop_fits_the_images_and_is_said_where_it_is_smaller(
    tmp_path, images_folder, caplog, shapes, crop, said
):
    caplog.set_level("INFO", "dvlae")
    images = images_folder(**{str(i): random(1, *shape) for i, shape in enumerate(shapes)})
    description, *_ = extract(images, tmp_path, patch_size="auto")
    assert description["crop_size"] == crop
    assert ("training crops have" in caplog.text) == (said is not None)
    assert said is None or said in caplog.text


def test_a_crop_is_as_large_as_the_stride_of_the_model_where_images_are(tmp_path, images_folder):
    images = images_folder(a=random(1, 130, 90))
    assert extract(images, tmp_path, patch_size="auto", stride=128)[0]["crop_size"] == [128, 90]


@pytest.mark.parametrize("shape", [(3,), (3, 3), (2, 3), (3, 2, 3)])
def test_images_of_fewer_than_4_pixels_along_all_axes_are_refused(tmp_path, images_folder, shape):
    images = images_folder(a=random(1, *(40 for _ in shape)), b=random(1, *shape), c=random(1, *shape))
    sides = " x ".join(map(str, shape))
    with pytest.raises(UserError, match=rf"found {sides} pixels \(and 1 more so\), allowed: at least 4 along one axis"):
        extract(images, tmp_path, patch_size="auto")
    assert extract(images, tmp_path, patch_size="auto", images=["a"])[0]["sources"]["train"]


@pytest.mark.parametrize("shape", [(1, 4), (3, 200), (200, 2), (2, 3, 200), (1, 40, 40), (4,)])
def test_images_of_4_pixels_along_one_axis_are_learned_from(tmp_path, images_folder, shape):
    assert extract(images_folder(a=random(1, *shape)), tmp_path, patch_size="auto")[0]["sources"]["train"]


def test_a_small_image_decides_nothing_for_the_others(tmp_path, images_folder, caplog):
    caplog.set_level("INFO", "dvlae")
    shapes = {"a": (100, 130), "b": (90, 200), "small": (8, 40), "c": (130, 128)}
    images = images_folder(**{name: random(1, *shape) for name, shape in shapes.items()})
    description, train, _ = extract(images, tmp_path, patch_size="auto", validation_fraction=0.2)
    assert (description["crop_size"], description["patch_size"]) == ([64, 64], [90, 128])
    assert "smaller than a training crop of 64 x 64 pixels, and padded" in caplog.text and ": small" in caplog.text
    mask = tifffile.imread(tmp_path / "patches" / "train_mask.tif").reshape(train.shape)
    names = [name for name, *_ in description["sources"]["train"]]
    number = names.index("small")
    pixels = read_noisy({image.name: image for image in read_manifest(images)}["small"])
    assert np.array_equal(train[number], np.pad(pixels, [(0, 0), (0, 82), (0, 88)], "symmetric"))
    assert mask[number, :, :8, :40].all() and mask[number].sum() == 8 * 40
    assert mask[[i for i, name in enumerate(names) if name != "small"]].all()
    # Padding is no part of the statistics.
    counted = np.ma.masked_array(train, mask == 0)
    assert description["mean"] == pytest.approx([counted.mean(dtype=np.float64)])
