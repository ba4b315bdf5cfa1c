import hashlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile

from dvlae.config.dataset import SimulateSettings
from dvlae.config.loading import load_dataset
from dvlae.data.canonical import read_clean, read_frame, read_noisy
from dvlae.data.manifest import read_manifest
from dvlae.data.simulate import simulate, simulate_noise
from dvlae.system.errors import UserError

KERNEL = [0.6**i for i in range(8)]
SHIPPED = Path(__file__).parents[2] / "config" / "datasets" / "simulated.yaml"
SIZE = (512, 768)
# SHA-256 of the pixels of coins.png in `simulated`.
NOISY_COINS = "3d26dce42b3f14dd7ef704897dad91644acd9986a70d3b981308a40c4c9f79ba"


def noise(level: float, direction: str = "x", **settings) -> np.ndarray:
    """Return noise (Y, X) on a flat image, in units of white."""
    settings = SimulateSettings(**{"kernel": KERNEL if direction != "none" else [1.0], "bits": None} | settings)
    clean = np.full((1, *SIZE), level)
    return simulate_noise(clean, settings, direction, np.random.default_rng([1]))[0] - level


def correlation(image: np.ndarray, lag: int, axis: int) -> float:
    """Return the correlation of pixels that are ``lag`` apart."""
    length = image.shape[axis]
    first, second = (np.take(image, range(start, start + length - lag), axis).ravel() for start in (0, lag))
    return np.corrcoef(first, second)[0, 1]


def theory(level: float, lag: int, photons: float = 50, read_noise: float = 0.02) -> float:
    """Return the correlation along the noise direction that photons, kernel and read noise lead to."""
    kernel = np.array(KERNEL)
    shared = (kernel[lag:] * kernel[: len(kernel) - lag]).sum() / (kernel**2).sum()
    return shared * (level / photons) / (level / photons + read_noise**2)


@pytest.mark.parametrize("direction", ["x", "y", "none"])
@pytest.mark.parametrize("level", [0.05, 0.3, 1.0])
def test_the_variance_is_photon_noise_plus_read_noise(level, direction):
    assert noise(level, direction).var() == pytest.approx(level / 50 + 0.02**2, rel=0.02)


def test_the_noise_has_no_mean():
    assert noise(0.4).mean() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("lag", [1, 2, 3, 7, 8, 12])
@pytest.mark.parametrize("level", [0.05, 0.5])
def test_the_correlation_along_x_is_the_kernels_own_and_there_is_none_along_y(level, lag):
    image = noise(level)
    assert correlation(image, lag, axis=1) == pytest.approx(theory(level, lag) if lag < 8 else 0, abs=0.01)
    assert correlation(image, lag, axis=0) == pytest.approx(0, abs=0.01)


def test_along_y_it_is_the_other_way_round():
    image = noise(0.5, "y")
    assert correlation(image, 1, axis=0) == pytest.approx(theory(0.5, 1), abs=0.01)
    assert correlation(image, 1, axis=1) == pytest.approx(0, abs=0.01)


def test_without_direction_there_is_no_correlation():
    image = noise(0.5, "none")
    assert [correlation(image, 1, axis) for axis in (0, 1)] == pytest.approx([0, 0], abs=0.01)


@pytest.mark.parametrize("direction", ["x", "y", "z"])
def test_in_a_volume_the_noise_is_correlated_along_its_direction_alone(direction):
    clean = np.full((1, 60, 90, 120), 0.5)
    settings = SimulateSettings(kernel=KERNEL, bits=None)
    volume = simulate_noise(clean, settings, direction, np.random.default_rng([4]))[0]
    found = {name: correlation(volume, 1, axis) for axis, name in enumerate("zyx")}
    assert found == pytest.approx({name: theory(0.5, 1) if name == direction else 0 for name in "zyx"}, abs=0.01)


def test_the_noise_of_a_trace_is_correlated_along_it():
    settings = SimulateSettings(kernel=KERNEL, bits=None)
    trace = simulate_noise(np.full((1, 200_000), 0.5), settings, "x", np.random.default_rng([5]))[0]
    assert correlation(trace, 2, 0) == pytest.approx(theory(0.5, 2), abs=0.01)


@pytest.mark.parametrize("shape", [(200_000,), (400, 500), (20, 100, 100)])
def test_the_noise_is_independent_between_channels(shape):
    settings = SimulateSettings(kernel=KERNEL, bits=None)
    first, second = simulate_noise(np.full((2, *shape), 0.5), settings, "x", np.random.default_rng([6]))
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] == pytest.approx(0, abs=0.01)


def test_the_first_pixels_of_a_row_are_as_noisy_as_the_others():
    settings = SimulateSettings(kernel=KERNEL, bits=None)
    image = simulate_noise(np.full((1, 20000, 9), 0.5), settings, "x", np.random.default_rng([2]))[0]
    assert image.std(axis=0) == pytest.approx(np.full(9, image.std()), rel=0.03)


def test_the_kernel_is_scaled_to_unit_energy():
    assert np.allclose(noise(0.5), noise(0.5, kernel=[7 * value for value in KERNEL]), atol=1e-6)


def test_bits_saturate_and_round():
    settings = SimulateSettings(bits=4, photons=5, read_noise=0.1)
    clean = np.linspace(0, 1, 4096).reshape(1, 64, 64)
    image = simulate_noise(clean, settings, "x", np.random.default_rng([3]))
    assert image.dtype == np.float32
    assert np.array_equal(np.unique(image), np.arange(16))


def test_the_offset_is_in_units_of_white():
    assert noise(0.2, offset=0.3).mean() == pytest.approx(0.3, abs=1e-3)


def wheel(dataset, **keys):
    """Return the settings of two images of the wheel with simulated noise."""
    settings = {"kernel": KERNEL, **keys.pop("simulate", {})}
    usual = {
        "noisy": ["coins.png", "chelsea.png"],
        "axes": "YXC",
        "channel": "grey",
        "crop": {"y": [0, 64], "x": [0, 96]},
    }
    return dataset(source={"kind": "skimage"}, simulate=settings, **usual | keys)


def test_each_clean_image_is_written_with_its_noisy_one(tmp_path, dataset):
    simulate(wheel(dataset), tmp_path, tmp_path / "out")
    images = read_manifest(tmp_path / "out")
    assert [image.name for image in images] == ["chelsea", "coins"]
    clean = read_clean(images[1])
    assert np.array_equal(clean[0], skimage.data.coins()[:64, :96])
    noisy = read_noisy(images[1])
    assert (noisy - clean).mean() == pytest.approx(0, abs=1)
    assert np.array_equal(noisy, np.rint(noisy))


def test_the_offset_belongs_to_the_clean_image_too(tmp_path, dataset):
    simulate(wheel(dataset, simulate={"offset": 0.1, "bits": None}), tmp_path, tmp_path / "out")
    clean = read_frame(tmp_path / "out" / "clean" / "coins.tif")
    assert np.allclose(clean[0], skimage.data.coins()[:64, :96] / 255 + 0.1)


def test_several_noisy_frames_share_a_clean_image(tmp_path, dataset):
    simulate(wheel(dataset, simulate={"frames": 3}, noisy="coins.png"), tmp_path, tmp_path / "out")
    images = read_manifest(tmp_path / "out")
    assert [image.name for image in images] == ["coins_frame0", "coins_frame1", "coins_frame2"]
    assert len({image.clean for image in images}) == 1
    frames = [read_noisy(image) for image in images]
    assert not np.array_equal(frames[0], frames[1])


def test_equal_seeds_give_equal_bytes_whatever_other_images_there_are(tmp_path, dataset):
    simulate(wheel(dataset), tmp_path, tmp_path / "both")
    simulate(wheel(dataset, noisy="coins.png"), tmp_path, tmp_path / "one")
    simulate(wheel(dataset, noisy="coins.png", simulate={"seed": 1}), tmp_path, tmp_path / "other")
    both, one, other = ((tmp_path / name / "noisy" / "coins.tif").read_bytes() for name in ("both", "one", "other"))
    assert both == one
    assert one != other


def test_white_is_the_largest_value_of_integer_files_and_1_of_others(tmp_path, dataset):
    tifffile.imwrite(tmp_path / "a.tif", np.full((40, 40), 65535, np.uint16))
    tifffile.imwrite(tmp_path / "b.tif", np.full((40, 40), 0.5, np.float32))
    simulate(dataset(simulate={"read_noise": 0}), tmp_path, tmp_path / "out")
    levels = [read_frame(tmp_path / "out" / "clean" / f"{name}.tif").mean() for name in "ab"]
    assert levels == [255, 127.5]


def test_a_volume_of_two_channels_is_simulated_with_its_planes_in_place(tmp_path, dataset):
    planes = np.linspace(0.2, 0.8, 12, dtype=np.float32).reshape(6, 2, 1, 1)
    tifffile.imwrite(tmp_path / "a.tif", planes * np.ones((1, 1, 40, 40), np.float32), photometric="minisblack")
    settings = dataset(axes="ZCYX", noise_direction="z", crop={"z": [1, 5]}, simulate={"kernel": KERNEL, "bits": None})
    simulate(settings, tmp_path, tmp_path / "out")
    (image,) = read_manifest(tmp_path / "out")
    assert image.shape == (2, 4, 40, 40)
    assert np.allclose(read_clean(image)[:, :, 0, 0], planes[1:5, :, 0, 0].T)
    assert np.allclose(read_noisy(image).mean(axis=(2, 3)), planes[1:5, :, 0, 0].T, atol=0.03)


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_clean_images_that_no_photons_can_make_are_refused(tmp_path, dataset, value):
    tifffile.imwrite(tmp_path / "a.tif", np.full((40, 40), value, np.float32))
    with pytest.raises(UserError, match=r"a.tif: found values that are negative or not numbers"):
        simulate(dataset(simulate={}), tmp_path, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_the_noise_of_shipped_datasets_never_changes(tmp_path):
    dataset = load_dataset(str(SHIPPED))[1].model_copy(update={"noisy": "coins.png"})
    simulate(dataset, tmp_path, tmp_path / "out")
    noisy = read_frame(tmp_path / "out" / "noisy" / "coins.tif").astype(np.uint8)
    assert hashlib.sha256(noisy.tobytes()).hexdigest() == NOISY_COINS


@pytest.mark.parametrize(("length", "photons"), [(0, 10), (1, 100), (4, 10), (16, 100)])
def test_the_noise_of_a_sweep_is_as_strong_and_as_long_as_its_name_says(dataset, length, photons):
    swept = dataset(
        simulate={"read_noise": 0.0, "bits": None}, sweep={"correlation_length": [length], "photons": [photons]}
    )
    ((name, member),) = swept.members("some").items()
    assert name == f"some_length{length}_photons{photons}"
    clean = np.full((1, *SIZE), 0.5)
    image = simulate_noise(clean, member.simulate, member.noise_direction, np.random.default_rng([7]))[0] - 0.5
    assert image.var() == pytest.approx(0.5 / photons, rel=0.05)
    along = [correlation(image, lag, axis=1) for lag in range(1, length + 3)]
    assert along == pytest.approx([max(0, 1 - lag / (length + 1)) for lag in range(1, length + 3)], abs=0.03)


def test_the_shipped_dataset_is_as_fixed_and_small():
    _, settings = load_dataset(str(SHIPPED))
    fixed = settings.simulate
    assert (fixed.photons, fixed.read_noise, fixed.bits, settings.noise_direction) == (50, 0.02, 8, "x")
    assert fixed.kernel == pytest.approx(KERNEL)
    wheel_images = [skimage.io.imread(Path(skimage.data.__file__).parent / name) for name in settings.noisy]
    assert 8 <= len(wheel_images) <= 12
    assert sum(image.shape[0] * image.shape[1] for image in wheel_images) < 2.2e6
