import csv
import json

import numpy as np
import pytest

from dvlae import cli
from dvlae.config.dataset import EvaluationSettings
from dvlae.config.messages import validate
from dvlae.data.canonical import read_clean, read_frame, read_noisy, write_image
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.models.files import save_model
from dvlae.reporting.generation import generate_from_prior, generate_noise
from dvlae.system.errors import UserError
from untrained import build

HOW = {"seed": 1, "device": "cpu"}


def noisy(*shape: int) -> np.ndarray:
    signal = 60 + 20 * np.sin(np.arange(shape[-1]) / 5)
    return np.random.default_rng(0).poisson(signal, shape).astype(np.float32)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    save_model(build(2), folder)
    return folder


@pytest.mark.parametrize("shape", [(1, 50), (1, 18, 21), (2, 18, 21), (1, 5, 18, 21)])
def test_every_image_gets_its_realisations_around_one_content(tmp_path, model, images_folder, shape):
    save_model(build(2, channels=shape[0], dimensions=len(shape) - 1), model)
    images = images_folder(**{"a b": noisy(*shape), "c": noisy(*shape)})
    generate_noise(model, images, tmp_path / "new", realisations=2, **HOW)
    made = read_manifest(tmp_path / "new")
    assert [image.name for image in made] == ["a b_0", "a b_1", "c_0", "c_1"]
    assert made[0].clean == made[1].clean != made[2].clean
    first, second, other = (read_noisy(image) for image in made[:3])
    assert first.shape == shape == read_clean(made[0]).shape
    assert np.abs(first - second).max() > 1
    assert np.abs(first - other).max() > 1
    assert (tmp_path / "new/generated_noise.png").stat().st_size > 1000


def test_the_seed_fixes_everything(tmp_path, model, images_folder):
    images = images_folder(a=noisy(1, 18, 21))
    for name, seed, realisations in (("one", 1, 1), ("more", 1, 2), ("other", 2, 1)):
        generate_noise(model, images, tmp_path / name, realisations=realisations, seed=seed, device="cpu")
    one, more, other = ((tmp_path / name / "noisy/a_0.tif").read_bytes() for name in ("one", "more", "other"))
    assert one == more != other


def test_real_noise_is_measured_against_the_clean_image_where_it_is_told_how(tmp_path, model):
    folder = tmp_path / "images"
    clean = 60 + 20 * np.sin(np.arange(40) / 5) * np.ones((1, 40, 1))
    noise = np.random.default_rng(0).normal(0, 3, (1, 40, 41))
    noise = noise[..., 1:] + noise[..., :-1]  # correlation 0.5 along x
    image = Image("a", folder / "noisy/a.tif", folder / "clean/a.tif", (1, 40, 40))
    write_image(image.noisy, clean + noise)
    write_image(image.clean, clean)
    write_manifest(folder, [image])
    settings = validate(EvaluationSettings, {"border": 2}, "test")
    generate_noise(model, folder, tmp_path / "new", realisations=1, settings=settings, **HOW)
    with open(tmp_path / "new/noise.csv", newline="") as file:
        found = {row["quantity"]: row for row in csv.DictReader(file)}
    assert float(found["autocorrelation_x_1"]["real"]) == pytest.approx(0.5, abs=0.07)
    assert float(found["autocorrelation_y_1"]["real"]) == pytest.approx(0, abs=0.07)
    assert set(found["variance_slope_channel_0"]) == {"quantity", "real", "generated"}


@pytest.mark.parametrize("size", [(37,), (13, 22), (5, 9, 14)])
def test_the_prior_gives_images_of_any_size(tmp_path, model, size):
    save_model(build(2, channels=2, dimensions=len(size)), model)
    generate_from_prior(model, tmp_path / "new", size=size, realisations=2, **HOW)
    first, second = read_manifest(tmp_path / "new")
    assert (first.name, second.name) == ("prior_0", "prior_1")
    for path in (first.noisy, first.clean):
        assert read_frame(path).shape == (2, *size)
    assert np.abs(read_clean(first) - read_clean(second)).max() > 0.1


def test_an_image_from_the_prior_does_not_depend_on_how_many_follow(tmp_path, model):
    for name, realisations in (("one", 1), ("more", 3)):
        generate_from_prior(model, tmp_path / name, size=(16, 16), realisations=realisations, **HOW)
    one, more = ((tmp_path / name / "noisy/prior_0.tif").read_bytes() for name in ("one", "more"))
    assert one == more


def test_a_size_with_other_axes_than_the_models_is_refused(tmp_path, model):
    with pytest.raises(
        UserError, match=r"size: found 1 channel and 3 spatial axes.*trained on 1 channel and 2 spatial axes"
    ):
        generate_from_prior(model, tmp_path / "new", size=(8, 8, 8), realisations=1, **HOW)
    assert not (tmp_path / "new").exists()


def test_the_command_makes_new_noise_that_the_other_commands_take(tmp_path, model, images_folder):
    images = images_folder(a=noisy(1, 40, 40), b=noisy(1, 40, 40))
    words = ["generate", str(model), str(tmp_path / "new"), "--kind", "noise", "--images", str(images)]
    assert cli.main([*words, "--device", "cpu", "--realisations", "2"]) == 0
    patches = ["extract-patches", str(tmp_path / "new"), str(tmp_path / "patches")]
    assert cli.main([*patches, "--settings", json.dumps({"patch_size": 16})]) == 0
