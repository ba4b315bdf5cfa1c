from pathlib import Path

import numpy as np
import pytest
import tifffile

from dvlae.config.settings import OutputSettings
from dvlae.data.canonical import read_clean, read_frame, read_info, read_noisy
from dvlae.data.manifest import read_manifest
from dvlae.data.outputs.folder import OutputFolder
from dvlae.data.outputs.reading import read_output
from dvlae.data.prepare import list_files, prepare
from dvlae.data.simulate import simulate
from dvlae.system.errors import UserError
from frames import pass_through

RANDOM = np.random.default_rng([0])


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    photometric = None if array.ndim == 1 else "rgb" if array.shape[-1] == 3 else "minisblack"
    tifffile.imwrite(path, array, photometric=photometric)
    return array


def random(*shape):
    return RANDOM.integers(0, 255, shape).astype(np.uint8)


def refusal(dataset, data) -> str:
    with pytest.raises(UserError) as error:
        prepare(dataset, data, None, data / "images")
    assert not list(data.glob("*images*"))  # nothing half-written
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pairs_are_made_in_natural_order_cropped_and_with_one_channel(tmp_path, dataset):
    noisy = {n: save(tmp_path / "noisy" / f"off {n}.tif", random(30, 40, 3)) for n in (10, 2)}
    clean = {n: save(tmp_path / "clean" / f"50x {n}.tif", random(30, 40, 3)) for n in (10, 2)}
    settings = dataset(
        noisy="noisy/*.tif", clean="clean/*.tif", axes="YXC", channel=1, crop={"y": [2, 20], "x": [5, 40]}
    )
    prepare(settings, tmp_path, None, tmp_path / "images")
    images = read_manifest(tmp_path / "images")
    assert [image.name for image in images] == ["off 2", "off 10"]
    for image, number in zip(images, (2, 10), strict=True):
        assert image.shape == (1, 18, 35)
        assert np.array_equal(read_noisy(image)[0], noisy[number][2:20, 5:40, 1])
        assert np.array_equal(read_clean(image)[0], clean[number][2:20, 5:40, 1])


def test_without_clean_images_there_are_none(tmp_path, dataset):
    save(tmp_path / "a.tif", random(30, 40))
    prepare(dataset(), tmp_path, None, tmp_path / "images")
    assert [image.clean for image in read_manifest(tmp_path / "images")] == [None]
    assert not (tmp_path / "images" / "clean").exists()


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [("CX", (2, 50), (2, 50)), ("X", (50,), (1, 50)), ("ZCYX", (5, 2, 30, 40), (2, 5, 30, 40))],
)
def test_traces_and_volumes_are_read_back_with_their_own_axes(tmp_path, dataset, axes, shape, expected):
    noisy, clean = (save(tmp_path / kind / "a.tif", random(*shape)) for kind in ("noisy", "clean"))
    prepare(dataset(axes=axes, noisy="noisy/*", clean="clean/*"), tmp_path, None, tmp_path / "images")
    (image,) = read_manifest(tmp_path / "images")
    assert image.shape == expected
    for path, array in ((image.noisy, noisy), (image.clean, clean)):
        assert np.array_equal(read_frame(path), array.swapaxes(0, 1) if axes == "ZCYX" else array.reshape(expected))


def test_images_may_differ_in_size(tmp_path, dataset):
    save(tmp_path / "a.tif", random(30, 40))
    save(tmp_path / "b.tif", random(20, 50))
    prepare(dataset(), tmp_path, None, tmp_path / "images")
    assert [image.shape for image in read_manifest(tmp_path / "images")] == [(1, 30, 40), (1, 20, 50)]


def test_the_mean_of_all_frames_is_the_clean_image_of_each(tmp_path, dataset):
    stack = save(tmp_path / "stack.tif", random(12, 30, 40))
    prepare(dataset(axes="TYX", clean="mean"), tmp_path, None, tmp_path / "images")
    images = read_manifest(tmp_path / "images")
    assert [image.name for image in images][:2] == ["stack_00", "stack_01"]
    assert {image.clean for image in images} == {tmp_path / "images" / "clean" / "mean.tif"}
    assert np.allclose(read_clean(images[0])[0], stack.mean(axis=0))


def test_simulated_images_are_taken_from_their_folder(tmp_path, dataset):
    save(tmp_path / "a.tif", random(30, 40))
    settings = dataset(simulate={"frames": 2}, crop={"y": [0, 20]})
    simulate(settings, tmp_path, tmp_path / "simulated")
    prepare(settings, tmp_path, tmp_path / "simulated", tmp_path / "images")
    images = read_manifest(tmp_path / "images")
    assert [(image.name, image.shape) for image in images] == [("a_frame0", (1, 20, 40)), ("a_frame1", (1, 20, 40))]
    assert {image.clean for image in images} == {tmp_path / "images" / "clean" / "a.tif"}
    with pytest.raises(UserError, match="--simulated"):
        prepare(settings, tmp_path, None, tmp_path / "others")


def test_the_same_files_give_the_same_bytes(tmp_path, dataset):
    save(tmp_path / "a.tif", random(30, 40))
    contents = []
    for name in ("one", "two"):
        prepare(dataset(), tmp_path, None, tmp_path / name)
        contents.append([(tmp_path / name / file).read_bytes() for file in ("manifest.csv", "noisy/a.tif")])
    assert contents[0] == contents[1]


def test_no_matching_file_is_refused(tmp_path, dataset):
    assert "noisy: no file matches '*.tif'" in refusal(dataset(), tmp_path)
    save(tmp_path / "a.tif", random(30, 40))
    assert "clean: no file matches 'clean/*'" in refusal(dataset(clean="clean/*"), tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_numbers_are_refused(tmp_path, dataset, value):
    image = random(30, 40).astype(np.float32)
    image[3, 4:6] = value
    save(tmp_path / "a.tif", image)
    assert "a.tif: found 2 pixels that are not numbers" in refusal(dataset(mask="none"), tmp_path)


def test_wrong_axes_are_refused(tmp_path, dataset):
    save(tmp_path / "a.tif", random(30, 40, 3))
    assert "axes: found 'YX'" in refusal(dataset(), tmp_path)
    assert "axes: found 'CYX'" in refusal(dataset(axes="CYX"), tmp_path)


def test_images_with_other_channels_are_refused(tmp_path, dataset):
    save(tmp_path / "a.tif", random(2, 30, 40))
    save(tmp_path / "b.tif", random(4, 30, 40))
    assert "b.tif: found 4 channels, allowed: 2" in refusal(dataset(axes="CYX"), tmp_path)


@pytest.mark.parametrize(("noisy", "clean"), [(3, 2), (2, 3)])
def test_clean_images_must_be_as_many_as_noisy_ones(tmp_path, dataset, noisy, clean):
    for number in range(noisy):
        save(tmp_path / "noisy" / f"{number}.tif", random(30, 40))
    for number in range(clean):
        save(tmp_path / "clean" / f"{number}.tif", random(30, 40))
    text = refusal(dataset(noisy="noisy/*", clean="clean/*"), tmp_path)
    assert f"clean: found {clean} clean images for {noisy} noisy ones, allowed: as many" in text


def stacks(folder, *lengths):
    return [save(folder / f"{number}.tif", random(length, 30, 40)) for number, length in enumerate(lengths)]


@pytest.mark.parametrize(("noisy", "clean", "pair"), [("123", "134", "32"), ("23", "12", "23")])
def test_files_whose_names_contradict_their_order_are_not_paired(tmp_path, dataset, noisy, clean, pair):
    for kind, numbers in (("noisy", noisy), ("clean", clean)):
        for number in numbers:
            save(tmp_path / kind / f"a{number}.tif", random(30, 40))
    text = refusal(dataset(noisy="noisy/*", clean="clean/*"), tmp_path)
    wrong, other = (f"{tmp_path}/{kind}/a{number}.tif" for kind, number in zip(("clean", "noisy"), pair, strict=True))
    assert f"clean: found {wrong} in the place of {other}, allowed: in that of {tmp_path}/noisy/a{pair[0]}.tif" in text
    both = f"*[{''.join(set(noisy) & set(clean))}].tif"
    prepare(dataset(noisy=f"noisy/{both}", clean=f"clean/{both}"), tmp_path, None, tmp_path / "images")


PAIRED = {"axes": "TYX", "noisy": "noisy/*", "clean": "clean/*"}


def test_frames_are_paired_file_by_file(tmp_path, dataset):
    stacks(tmp_path / "noisy", 3, 2)
    clean = stacks(tmp_path / "clean", 3, 2)
    prepare(dataset(**PAIRED), tmp_path, None, tmp_path / "images")
    images = read_manifest(tmp_path / "images")
    assert [(image.frame, image.clean_frame) for image in images] == [(n, n) for n in (0, 1, 2, 0, 1)]
    for image, frame in zip(images, [*clean[0], *clean[1]], strict=True):
        assert np.array_equal(read_clean(image)[0], frame)


@pytest.mark.parametrize(("noisy", "clean"), [((3, 3), (2, 4)), ((3, 2), (3, 1)), ((1, 3), (2, 2))])
def test_a_noisy_and_a_clean_file_have_as_many_frames(tmp_path, dataset, noisy, clean):
    stacks(tmp_path / "noisy", *noisy)
    stacks(tmp_path / "clean", *clean)
    at = next(number for number in range(2) if noisy[number] != clean[number])
    assert refusal(dataset(**PAIRED), tmp_path) == (
        f"{tmp_path}/clean/{at}.tif: found {clean[at]} clean frames, allowed: {noisy[at]}, as many as in "
        f"{tmp_path}/noisy/{at}.tif, or one in each clean file"
    )


@pytest.mark.parametrize(("noisy", "clean"), [((3, 3), (6,)), ((6,), (3, 3)), ((1, 1, 1), (1, 2)), ((2, 1), (3,))])
def test_as_many_frames_in_other_files_are_no_pairs(tmp_path, dataset, noisy, clean):
    stacks(tmp_path / "noisy", *noisy)
    stacks(tmp_path / "clean", *clean)
    text = refusal(dataset(**PAIRED), tmp_path)
    assert text.startswith(f"clean: found {len(clean)} clean images for {len(noisy)} noisy ones ({sum(clean)} frames")


@pytest.mark.parametrize(("noisy", "clean"), [((3,), (1, 1, 1)), ((1, 1, 1), (3,))])
def test_a_stack_and_as_many_files_are_paired_in_order(tmp_path, dataset, noisy, clean):
    stacks(tmp_path / "noisy", *noisy)
    expected = np.concatenate(stacks(tmp_path / "clean", *clean))
    prepare(dataset(**PAIRED), tmp_path, None, tmp_path / "images")
    found = [read_clean(image)[0] for image in read_manifest(tmp_path / "images")]
    assert np.array_equal(found, expected)


def test_one_clean_frame_is_that_of_all_frames_of_its_noisy_file(tmp_path, dataset, caplog):
    noisy, clean = stacks(tmp_path / "noisy", 3, 1, 2), stacks(tmp_path / "clean", 1, 1, 1)
    clean_values = clean[2].astype(np.float32)
    clean_values[0, 0] = np.nan
    save(tmp_path / "clean" / "2.tif", clean_values)
    prepare(dataset(**PAIRED), tmp_path, None, tmp_path / "images")
    images = read_manifest(tmp_path / "images")
    assert [image.clean_frame for image in images] == [0] * 6
    assert np.array_equal(read_noisy(images[2])[0], noisy[0][2])
    for image, number in zip(images[:4], (0, 0, 0, 1), strict=True):
        assert np.array_equal(read_clean(image)[0], clean[number][0])
    assert [image.mask is not None for image in images] == [False] * 4 + [True] * 2
    expected = (
        f"clean: the frame of {tmp_path}/clean/0.tif is that of all 3 frames of {tmp_path}/noisy/0.tif, and 1 more so"
    )
    assert expected in caplog.messages


def test_clean_images_must_have_the_shape_of_the_noisy_ones(tmp_path, dataset):
    save(tmp_path / "noisy" / "a.tif", random(30, 40))
    save(tmp_path / "clean" / "a.tif", random(30, 41))
    text = refusal(dataset(noisy="noisy/*", clean="clean/*"), tmp_path)
    assert "clean/a.tif: found shape (1, 30, 41), allowed: (1, 30, 40)" in text


def test_a_mean_needs_frames_of_one_shape_and_more_than_one(tmp_path, dataset):
    save(tmp_path / "a.tif", random(30, 40))
    assert "clean: found 'mean' for one noisy image" in refusal(dataset(clean="mean"), tmp_path)
    save(tmp_path / "b.tif", random(30, 41))
    assert "b.tif: found shape (1, 30, 41), allowed: (1, 30, 40)" in refusal(dataset(clean="mean"), tmp_path)


def test_a_truncated_file_is_refused(tmp_path, dataset):
    save(tmp_path / "a.tif", random(30, 40))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:700])
    assert "a.tif: cannot be read" in refusal(dataset(), tmp_path)


@pytest.mark.parametrize("name", ["noisy/b.tif", "b.tif", "manifest.csv", "notes.txt"])
def test_a_folder_with_files_of_the_user_is_not_replaced(tmp_path, dataset, name):
    save(tmp_path / "a.tif", random(30, 40))
    for _ in range(2):
        prepare(dataset(), tmp_path, None, tmp_path / "images")
    file = tmp_path / "images" / name
    if file.suffix == ".tif":
        save(file, random(30, 40))
    else:
        file.write_text("image,weight\n")
    with pytest.raises(UserError, match=f"images: contains {name}, which this command has not written"):
        prepare(dataset(), tmp_path, None, tmp_path / "images")
    assert file.exists()


def test_a_failure_leaves_the_older_images(tmp_path, dataset):
    save(tmp_path / "a.tif", random(30, 40))
    prepare(dataset(), tmp_path, None, tmp_path / "images")
    save(tmp_path / "b.tif", random(3, 30, 40))
    with pytest.raises(UserError):
        prepare(dataset(), tmp_path, None, tmp_path / "images")
    assert len(read_manifest(tmp_path / "images")) == 1


@pytest.mark.parametrize(("dtype", "offset"), [
    ("uint32", 4_000_000_000), ("int64", -(10**15)), ("float64", 1e9 + 0.25), ("float64", 1e-3),
])  # fmt: skip
@pytest.mark.parametrize("clean", [None, "mean", "clean/*"])
def test_grey_values_so_large_that_32_bits_would_lose_their_noise_keep_it(tmp_path, dataset, dtype, offset, clean):
    noise = RANDOM.normal(0, 1e-10 if offset == 1e-3 else 10, (5, 30, 40))
    noise = noise.round().astype(int) if dtype != "float64" else noise
    stack = (np.full(noise.shape, offset, dtype) + noise.astype(dtype)).astype(dtype)
    stack[0] = 0  # One blank frame decides nothing.
    save(tmp_path / "noisy/a.tif", stack)
    save(tmp_path / "clean/a.tif", stack)
    settings = dataset(axes="TYX", noisy="noisy/*", clean=clean)
    prepare(settings, tmp_path, None, tmp_path / "images")
    images = read_manifest(tmp_path / "images")
    shift = (read_noisy(images[1])[0] - noise[1]).ravel()
    assert np.ptp(shift) <= 1e-3 * np.ptp(noise[1])
    if clean == "mean":
        mean = read_clean(images[1])[0] - noise[1:].mean(axis=0) - shift.mean()
        assert np.abs(mean).max() <= 1e-3 * np.ptp(noise[1])
    elif clean:
        assert np.array_equal(read_clean(images[1]), read_noisy(images[1]))


@pytest.mark.parametrize("value", [1e40, 1e-40, 1e18, 1e-20, 1e300, 1e-300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clean", [None, "mean"])
def test_values_whose_squares_32_bits_cannot_have_are_scaled_and_come_back(tmp_path, caplog, value, dtype, clean):
    if dtype == "float32" and not 1e-30 < value < 1e30:
        return
    stack = (value * RANDOM.normal(10, 1, (3, 30, 40))).astype(dtype)
    save(tmp_path / "a.tif", stack)
    keys = {"axes": "TYX"} | ({"clean": clean} if clean else {})
    found = tifffile.imread(pass_through(tmp_path, **keys))
    assert np.allclose(found, stack, rtol=1e-6, atol=0)
    images = read_manifest(tmp_path / "images")
    assert 1e-3 < np.abs(read_noisy(images[0])).max() < 1e3
    assert "results come back in the units of the files" in caplog.text
    if clean:
        assert np.allclose(read_clean(images[0])[0], np.mean([read_noisy(image)[0] for image in images], axis=0))


@pytest.mark.parametrize("value", [1e13, 1e-13, 1.0])
def test_other_values_are_not_scaled(tmp_path, caplog, value):
    save(tmp_path / "a.tif", value * RANDOM.normal(10, 1, (3, 30, 40)))
    pass_through(tmp_path, axes="TYX")
    assert read_info(read_manifest(tmp_path / "images")[0].noisy).scale == 1
    assert not caplog.messages


def test_a_deviation_has_the_units_of_the_file(tmp_path):
    save(tmp_path / "a.tif", 1e18 * RANDOM.normal(10, 1, (30, 40)))
    pass_through(tmp_path)
    (image,) = read_manifest(tmp_path / "images")
    (tmp_path / "deviation").mkdir()
    outputs = OutputFolder(tmp_path / "deviation", [image], deviation=True)
    outputs.write(image, np.full(image.shape, 2.0))
    scale = read_info(image.noisy).scale
    assert np.array_equal(tifffile.imread(tmp_path / "deviation/a.tif"), np.full((30, 40), 2 * scale))
    assert (read_output(tmp_path / "deviation", image, deviation=True) == 2).all()


@pytest.mark.parametrize("offset", [2**60, -(2**60), 2**62 + 12345, 2**40, 2**63 + 2**50])
@pytest.mark.parametrize("output", ["same", "float32"])
def test_differences_of_very_large_whole_numbers_stay(tmp_path, offset, output):
    dtype = np.uint64 if offset >= 2**63 else np.int64
    noise = RANDOM.integers(-50, 50, (3, 30, 40))
    stack = np.array([int(n) + offset for n in noise.flat], dtype).reshape(noise.shape)
    save(tmp_path / "a.tif", stack)
    found = tifffile.imread(pass_through(tmp_path, OutputSettings(dtype=output), axes="TYX"))
    if output == "same" or abs(offset) > 2**50:
        assert found.dtype == dtype
        assert np.array_equal(found, stack)
    else:
        assert np.array_equal(found - float(offset), noise)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "uint32"])
def test_canonical_files_have_the_type_of_the_source_and_no_needless_offset(tmp_path, dataset, dtype):
    stack = save(tmp_path / "a.tif", random(3, 30, 40).astype(dtype))
    prepare(dataset(axes="TYX"), tmp_path, None, tmp_path / "images")
    images = read_manifest(tmp_path / "images")
    assert [(image.name, image.frame, image.noisy.name) for image in images] == [
        ("a_0", 0, "a.tif"), ("a_1", 1, "a.tif"), ("a_2", 2, "a.tif"),
    ]  # fmt: skip
    assert (read_info(images[0].noisy).dtype, read_info(images[0].noisy).offset) == (dtype, 0)
    for image, frame in zip(images, stack, strict=True):
        assert np.array_equal(read_noisy(image)[0], frame)


def test_a_movie_keeps_its_calibration_and_the_name_of_the_channel_that_is_kept(tmp_path, dataset):
    movie = random(6, 2, 30, 40)
    metadata = {"axes": "TCYX", "PhysicalSizeX": 0.13, "PhysicalSizeXUnit": "µm", "Channel": {"Name": ["a", "b"]}}
    tifffile.imwrite(tmp_path / "movie.ome.tif", movie, metadata=metadata, photometric="minisblack")
    prepare(dataset(axes="TCYX", noisy="movie.ome.tif", channel=1), tmp_path, None, tmp_path / "images")
    info = read_info(read_manifest(tmp_path / "images")[0].noisy)
    assert (info.kind, info.axes, info.shape) == ("ome", "TYX", (6, 30, 40))
    assert (info.calibration.unit, info.calibration.sizes["x"], info.calibration.channels) == ("um", 0.13, ("b",))


def test_images_that_an_older_version_prepared_are_refused(tmp_path):
    (tmp_path / "manifest.csv").write_text("image,noisy,clean,shape\na,noisy/a.tif,,1x30x40\n")
    with pytest.raises(UserError, match="made by an older version of dvlae; run `dvlae prepare` again"):
        read_manifest(tmp_path)


SET_XML = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{own}">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="32" SizeY="32" SizeZ="1" '
    'SizeC="1" SizeT="{count}"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
)


def write_set(folder: Path, *names: str) -> None:
    """Write an OME-TIFF of several files, one for each time."""
    folder.mkdir(parents=True)
    ids = [f"urn:uuid:00000000-0000-4000-8000-{number:012d}" for number in range(len(names))]
    planes = "".join(
        f'<TiffData FirstT="{number}" IFD="0" PlaneCount="1"><UUID FileName="{name}">{uuid}</UUID></TiffData>'
        for number, (name, uuid) in enumerate(zip(names, ids, strict=True))
    )
    for number, (name, uuid) in enumerate(zip(names, ids, strict=True)):
        image = np.random.default_rng(number).poisson(50, (32, 32)).astype(np.uint16)
        xml = SET_XML.format(own=uuid, count=len(names), planes=planes)
        tifffile.imwrite(folder / name, image, description=xml, metadata=None)


def test_all_files_that_are_read_are_listed(tmp_path, dataset):
    for name in ("noisy/a/1.tif", "noisy/b/2.tif", "clean/1.tif", "clean/2.tif", "mask.tif", "other.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / name, np.eye(32, dtype=np.uint8))
    listed = list_files(dataset(noisy="noisy/**/*.tif", clean="clean", mask="mask.tif"), tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in listed] == [
        *("noisy/a/1.tif", "noisy/b/2.tif", "clean/1.tif", "clean/2.tif", "mask.tif")
    ]


def test_all_files_of_a_set_are_listed(tmp_path, dataset):
    write_set(tmp_path / "set", "t0.ome.tif", "t1.ome.tif")
    listed = list_files(dataset(noisy="set/t0.ome.tif"), tmp_path)
    assert {path.name for path in listed} == {"t0.ome.tif", "t1.ome.tif"}


def test_images_are_not_replaced_by_what_is_made_of_them(tmp_path, dataset):
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/a.tif", np.random.default_rng(0).poisson(50, (32, 32)).astype(np.uint16))
    with pytest.raises(UserError, match=r"images: contains .*a\.tif, which"):
        prepare(dataset(noisy="images/*.tif"), tmp_path, None, tmp_path / "images")
    assert (tmp_path / "images/a.tif").exists()


def test_simulated_images_without_a_simulation_are_refused(tmp_path, dataset):
    with pytest.raises(UserError, match=r"--simulated: found .*, but the dataset has no `simulate`"):
        prepare(dataset(), tmp_path, tmp_path / "simulated", tmp_path / "images")
