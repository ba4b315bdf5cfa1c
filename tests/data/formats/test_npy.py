import pickle

import numpy as np
import pytest

from dvlae.data.sources import open_sources
from dvlae.system.errors import UserError

RANDOM = np.random.default_rng([0])


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i4", "<u8", "<f2", ">f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_read_as_it_is_and_says_nothing_of_its_axes(tmp_path, dtype, order):
    array = np.asarray(RANDOM.integers(0, 250, (3, 4, 5)).astype(dtype), order=order)
    np.save(tmp_path / "a.npy", array)
    with open_sources(tmp_path / "a.npy") as (source,):
        assert (source.kind, source.axes, source.shape) == ("npy", "", (3, 4, 5))
        assert source.dtype == np.dtype(dtype).newbyteorder("=")
        assert np.array_equal(source.read(), array)
        assert np.array_equal(source.read((2, 1)), array[2, 1])


def test_booleans_are_0_and_1_and_long_floats_are_rounded_with_a_word(tmp_path):
    array = RANDOM.random((4, 5)) > 0.5
    for dtype, stored, noted in ((bool, np.uint8, False), (np.longdouble, np.float64, np.longdouble().itemsize > 8)):
        np.save(tmp_path / "a.npy", array.astype(dtype))
        with open_sources(tmp_path / "a.npy") as (source,):
            assert (source.dtype, source.read().dtype) == (stored, stored)
            assert np.array_equal(source.read(), array)
            assert ["rounded to float64" in note for note in source.notes] == [True] * noted


def test_the_suffix_need_not_be_that_of_the_format(tmp_path):
    with (tmp_path / "a.tif").open("wb") as file:
        np.save(file, np.ones((2, 3)))
    with open_sources(tmp_path / "a.tif") as (source,):
        assert source.kind == "npy"


@pytest.mark.parametrize(
    "array", [np.array([{}]), np.zeros(3, "u1,f4"), np.array(["a"]), np.zeros((0, 4)), np.array(5.0)], ids=str
)
def test_what_is_no_array_of_numbers_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=r"a\.npy: "), open_sources(tmp_path / "a.npy"):
        pass


@pytest.mark.parametrize("ragged", [False, True])
def test_python_objects_are_named_and_never_read_and_the_advice_works(tmp_path, ragged, monkeypatch):
    path = tmp_path / "a.npy"
    images = np.empty(2, object)
    images[:] = [np.ones((5, 6)), np.ones((7, 6) if ragged else (5, 6))]
    monkeypatch.setattr("pickle.load", None)
    for write in (lambda: np.save(path, images, allow_pickle=True), lambda: path.write_bytes(pickle.dumps(images))):
        write()
        with pytest.raises(UserError) as error, open_sources(path):
            pass
        assert "found Python objects (pickled), allowed: one array of numbers" in str(error.value)
        assert "damaged" not in str(error.value)
    for content in images if ragged else [np.stack(images)]:
        np.save(path, content)
        with open_sources(path) as (source,):
            assert source.dtype == np.float64


@pytest.mark.parametrize("array", [np.zeros(3, "u1,f4"), np.array(["a"]), np.zeros(3, "datetime64[s]")], ids=str)
def test_what_is_no_number_is_not_called_damaged(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError) as error, open_sources(tmp_path / "a.npy"):
        pass
    assert str(error.value) == f"{tmp_path / 'a.npy'}: its values are of type {array.dtype}, allowed: numbers"


def test_a_file_that_breaks_off_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((40, 50)))
    content = (tmp_path / "a.npy").read_bytes()
    for kept in (0, 5, 9, 100, 1000, len(content) - 1):
        (tmp_path / "a.npy").write_bytes(content[:kept])
        with pytest.raises(UserError, match=r"a\.npy: "), open_sources(tmp_path / "a.npy"):
            pass
