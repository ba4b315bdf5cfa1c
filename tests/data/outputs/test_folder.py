import itertools
import logging
import shutil

import numpy as np
import pytest
import tifffile

import dvlae.data.outputs.folder
from dvlae.config.settings import OutputSettings
from dvlae.data.canonical import write_frames
from dvlae.data.manifest import Image
from dvlae.data.outputs.folder import OutputFolder, join_folders
from dvlae.data.outputs.reading import is_output, read_output
from dvlae.data.sources import SourceInfo
from dvlae.system.errors import UserError

RANDOM = np.random.default_rng([0])


@pytest.fixture
def images(tmp_path):
    """Return the images of a stack of five frames and of a single image."""
    found = []
    for name, axes, shape in (("stack", "TCYX", (5, 2, 9, 12)), ("one", "CYX", (2, 8, 10))):
        info = SourceInfo(axes, shape, "imagej", "uint16")
        frames = RANDOM.integers(0, 99, (info.frames, *info.frame_shape)).astype(np.uint16)
        path = tmp_path / "noisy" / f"{name}.tif"
        write_frames(path, info, frames, frames.dtype)
        for number in range(info.frames):
            frame_name = f"{name}_{number}" if info.frames > 1 else name
            found.append(Image(frame_name, path, None, info.frame_shape, frame=number))
    return found


def result(image):
    """Return the result for an image."""
    return np.random.default_rng(len(image.name) + image.frame).normal(size=image.shape).astype(np.float32)


def write(folder, images, until=None, **more):
    """Write the results of images, as a job does that may be killed before the image ``until``."""
    folder.mkdir(exist_ok=True)
    outputs = OutputFolder(folder, images, **more)
    written = []
    for image in images[:until]:
        if not outputs.has(image):
            outputs.write(image, result(image))
            written.append(image.name)
    return written


def check(folder, images):
    assert sorted(path.name for path in folder.iterdir()) == ["one.tif", "stack.tif"]
    for image in images:
        assert np.array_equal(read_output(folder, image), result(image))


def test_there_is_one_file_for_each_source(tmp_path, images):
    write(tmp_path / "out", images)
    check(tmp_path / "out", images)
    assert tifffile.imread(tmp_path / "out/stack.tif").shape == (5, 2, 9, 12)


@pytest.mark.parametrize("killed", range(7))
@pytest.mark.parametrize("torn", [False, True])
def test_an_interrupted_job_goes_on_after_the_last_complete_frame(tmp_path, images, killed, torn):
    folder = tmp_path / "out"
    first = write(folder, images, killed)
    frames = folder / "stack.frames"
    if torn and frames.exists():
        with frames.open("ab") as file:
            file.write(b"half a frame")
    if killed < 5:
        assert not (folder / "stack.tif").exists()
    again = write(folder, images)
    assert first + again == [image.name for image in images]
    check(folder, images)


def test_a_job_that_was_killed_while_it_wrote_the_result_computes_nothing_again(tmp_path, images, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dvlae.data.outputs.folder, "write_source", fail)
        write(tmp_path / "out", images)
    assert write(tmp_path / "out", images) == ["one"]
    check(tmp_path / "out", images)


@pytest.mark.parametrize("bounds", [(0, 2, 6), (0, 1, 3, 6), (0, 5, 6), (0, 1, 2, 3, 4, 5, 6)])
def test_the_frames_of_several_jobs_become_one_file(tmp_path, images, bounds):
    parts = []
    for start, stop in itertools.pairwise(bounds):
        parts.append(tmp_path / f"part {start}")
        write(parts[-1], images[start:stop])
    join_folders(parts, tmp_path / "joined")
    check(tmp_path / "joined", images)
    write(tmp_path / "out", images)
    assert (tmp_path / "joined/stack.tif").read_bytes() == (tmp_path / "out/stack.tif").read_bytes()
    join_folders(parts, tmp_path / "again")  # The parts are left as they are.
    check(tmp_path / "again", images)


@pytest.mark.parametrize(("axes", "shape"), [
    ("YX", (9, 12)), ("X", (12,)), ("TCYX", (4, 2, 9, 12)), ("STYXC", (2, 3, 9, 12, 3)), ("CZTYX", (2, 3, 4, 9, 12)),
    ("XT", (12, 5)), ("YXT", (9, 12, 4)),
])  # fmt: skip
@pytest.mark.parametrize("offset", [0, 1e9])
def test_samples_have_an_axis_before_those_of_the_source(tmp_path, axes, shape, offset):
    info = SourceInfo(axes, shape, "imagej", "uint16", offset=offset)
    write_frames(tmp_path / "a.tif", info, np.ones((info.frames, *info.frame_shape)), np.dtype(np.uint16))
    values = RANDOM.normal(size=(3, info.frames, *info.frame_shape)).astype(np.float32)
    images = [Image("a", tmp_path / "a.tif", None, info.frame_shape, frame=number) for number in range(info.frames)]
    (tmp_path / "out").mkdir()
    folder = OutputFolder(tmp_path / "out", images, samples=3)
    for image in images:
        (place,) = folder.place(image)
        place[:] = values[:, image.frame]
        folder.finish(image)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.tif"]
    found = tifffile.imread(tmp_path / "out" / "a.tif")
    assert found.shape == (3, *shape) and found.dtype == (np.float64 if offset else np.float32)
    assert is_output(tmp_path / "out" / "a.tif")
    for sample, of_sample in zip(found, values, strict=True):
        assert np.allclose(sample - offset, info.in_source_order(of_sample), atol=1e-5)
    assert folder.place(images[0]) == [] and folder.has(images[-1])


def test_a_folder_with_images_of_the_user_is_not_replaced(tmp_path, images):
    write(tmp_path / "part", images)
    for _ in range(2):
        join_folders([tmp_path / "part"], tmp_path / "all")
    tifffile.imwrite(tmp_path / "all" / "mine.tif", np.zeros((4, 5), np.float32))
    with pytest.raises(UserError, match=r"all: contains mine\.tif, which this command has not written"):
        join_folders([tmp_path / "part"], tmp_path / "all")


def test_frames_that_are_missing_or_there_twice_are_refused(tmp_path, images):
    parts = [tmp_path / "a", tmp_path / "b"]
    write(parts[0], images[:2])
    write(parts[1], images[3:])
    with pytest.raises(UserError, match=r"b/stack.frames: found frames from 3, allowed: from 2, each in one part"):
        join_folders(parts, tmp_path / "joined")
    with pytest.raises(UserError, match=r"a/stack.frames: found frames up to 2, allowed: all 5"):
        join_folders(parts[:1], tmp_path / "joined")
    shutil.copytree(parts[0], tmp_path / "c")
    with pytest.raises(UserError, match=r"c/stack.frames: found frames from 0, allowed: from 2, each in one part"):
        join_folders([parts[0], tmp_path / "c"], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_the_user_is_told_what_is_rounded_and_clipped_and_what_is_not_as_the_source_was(tmp_path, images, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "out").mkdir()
    outputs = OutputFolder(tmp_path / "out", images, OutputSettings(dtype="same", compression="zlib"))
    for image in images:
        outputs.write(image, np.full(image.shape, 70000 if image.frame == 1 else 2.5, np.float32))
    outputs.report.log("predict")
    assert caplog.messages == [
        "predict: results for stack, one are written as OME-TIFF, as ImageJ stacks are not compressed",
        "predict: results are rounded to uint16; 216 values beyond its range are clipped, in stack",
    ]


def test_a_file_of_another_program_for_each_image_is_read(tmp_path, images):
    folder = tmp_path / "out"
    folder.mkdir()
    for image in images:
        tifffile.imwrite(folder / f"{image.name}.tif", result(image), photometric="minisblack")
    for image in images:
        assert np.array_equal(read_output(folder, image), result(image))
    tifffile.imwrite(folder / "one.tif", np.zeros((2, 8, 11), np.float32), photometric="minisblack")
    with pytest.raises(UserError, match=r"one.tif: found shape \(2, 8, 11\), but the noisy images have \(2, 8, 10\)"):
        read_output(folder, images[-1])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_stack_of_another_program_is_read(tmp_path, images, compression, byteorder):
    folder = tmp_path / "out"
    folder.mkdir()
    stack = np.stack([result(image) for image in images[:5]])
    options = {"photometric": "minisblack", "compression": compression, "byteorder": byteorder}
    tifffile.imwrite(folder / "stack.tif", stack, **options)
    for image in images[:5]:
        assert np.array_equal(read_output(folder, image), result(image))


def test_a_missing_result_is_none(tmp_path, images):
    assert read_output(tmp_path, images[0]) is None


def test_a_job_that_was_killed_within_the_first_bytes_starts_again(tmp_path, images):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/stack.frames").write_bytes(b'{"info": ')
    assert write(tmp_path / "out", images) == [image.name for image in images]
    check(tmp_path / "out", images)
