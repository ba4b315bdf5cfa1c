import numpy as np
import pytest
import tifffile

from dvlae.data.canonical import read_frame, write_image

RANDOM = np.random.default_rng([0])
TRACES = [(1, 12), (2, 12), (3, 12), (4, 3)]
IMAGES = [(1, 9, 12), (2, 9, 12), (3, 9, 12), (4, 9, 12), (1, 1, 12), (3, 9, 3)]
VOLUMES = [(1, 5, 9, 12), (2, 5, 9, 12), (3, 5, 9, 3), (2, 1, 9, 12), (1, 1, 9, 12), (4, 2, 1, 12)]


@pytest.mark.parametrize("shape", TRACES + IMAGES + VOLUMES)
def test_a_canonical_image_reads_back_as_it_was_written(tmp_path, shape):
    image = RANDOM.normal(size=shape).astype(np.float32)
    write_image(tmp_path / "an image.tif", image)
    assert np.array_equal(read_frame(tmp_path / "an image.tif"), image)


def test_a_canonical_image_says_to_imagej_that_its_planes_are_channels(tmp_path):
    write_image(tmp_path / "a.tif", np.zeros((3, 9, 12)))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_imagej
        assert file.imagej_metadata["channels"] == 3
        assert file.pages[0].dtype == np.float32


def test_a_canonical_volume_says_to_imagej_what_are_planes_and_what_channels(tmp_path):
    volume = RANDOM.normal(size=(2, 5, 9, 12)).astype(np.float32)
    write_image(tmp_path / "a.tif", volume)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert (file.imagej_metadata["channels"], file.imagej_metadata["slices"]) == (2, 5)
        assert np.array_equal(file.pages[3].asarray(), volume[1, 1])  # channels change fastest


def test_an_image_that_another_program_wrote_has_its_planes_as_channels(tmp_path):
    image = RANDOM.normal(size=(2, 9, 12)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", image)
    assert np.array_equal(read_frame(tmp_path / "a.tif"), image)
