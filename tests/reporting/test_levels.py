from pathlib import Path

import numpy as np
import pytest
import torch

import dvlae.reporting.levels as reporting
from dvlae.inference import levels
from dvlae.inference.levels import vary_levels
from dvlae.models.dvlae import DVLAE, Architecture
from dvlae.models.files import save_model
from dvlae.reporting.levels import make_levels_figure
from dvlae.system.errors import UserError


def build(number: int = 3, channels: int = 1, dimensions: int = 2) -> DVLAE:
    torch.manual_seed(0)
    architecture = Architecture(channels, 8, 4, number, 1, 3, 8, "x", dimensions)
    model = DVLAE(architecture, [60.0] * channels, [20.0] * channels, [1.0] * channels)
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    return model.eval()


def noisy(*sides: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).poisson(60, (channels, *sides)).astype(np.float32)


def vary(model, image, samples=3, seed=0) -> dict[int, np.ndarray]:
    return dict(vary_levels(model, image, name="a", seed=seed, samples=samples))


def test_every_level_is_varied_coarsest_first_in_the_size_of_the_image():
    sampled = vary(build(), noisy(21, 30))
    assert list(sampled) == [2, 1, 0]
    for samples in sampled.values():
        assert samples.shape == (3, 1, 21, 30)
        assert samples.std(axis=0).max() > 0


@pytest.mark.parametrize("deaf", [0, 1, 2])
def test_a_level_that_nothing_listens_to_varies_nothing_and_the_others_do(deaf):
    model = build()
    torch.nn.init.zeros_(model.ladder_vae.levels[deaf].from_latent.weight)
    spread = {level: samples.std(axis=0).max() for level, samples in vary(model, noisy(16, 16)).items()}
    assert spread.pop(deaf) < 1e-3
    assert min(spread.values()) > 1e-2


def test_above_a_level_latents_are_fixed_at_it_they_differ_and_below_they_are_the_mean():
    sample_latent = levels._level_sampler(1, 0, "a", [0, 1])
    mean, std = torch.randn(2, 4, 5, 5), torch.ones(2, 4, 5, 5)
    below, at, above = (sample_latent(level, mean, std) - mean for level in (0, 1, 2))
    assert not below.any()
    assert (at[0] - at[1]).abs().max() > 0.1
    assert above.abs().max() > 0.1
    assert torch.allclose(above[0], above[1], atol=1e-6)


def test_seed_fixes_the_samples():
    model, image = build(), noisy(16, 16)
    one, same, other = (vary(model, image, seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-2


@pytest.mark.parametrize(("sides", "channels"), [((64,), 1), ((16, 24), 3), ((5, 16, 24), 1)])
def test_traces_images_and_volumes_have_a_picture(tmp_path, images_folder, monkeypatch, sides, channels):
    saved = []
    monkeypatch.setattr(reporting, "SAMPLES_PER_LEVEL", reporting.MAX_SHOWN_SAMPLES)
    monkeypatch.setattr(reporting, "save_figure", lambda figure, _: saved.append(figure))
    save_model(build(channels=channels, dimensions=len(sides)), tmp_path)
    images = images_folder(a=noisy(*sides, channels=channels))
    make_levels_figure(tmp_path, images, tmp_path / "a.png", image="a", device="cpu")
    saved[0].draw_without_rendering()
    assert sum(axes.get_ylabel().startswith("level") for axes in saved[0].axes) == 3


def test_a_crop_shows_what_the_whole_image_shows_there(tmp_path, images_folder, monkeypatch):
    shown = {}
    monkeypatch.setattr(reporting, "SAMPLES_PER_LEVEL", reporting.MAX_SHOWN_SAMPLES)
    monkeypatch.setattr(reporting, "plot_levels", lambda rows, *_: shown.update({len(shown): rows}))
    monkeypatch.setattr(reporting, "save_figure", lambda *_: None)
    save_model(build(), tmp_path)
    images = images_folder(a=noisy(40, 50))
    for crop in (None, [(9, 20), (5, 33)]):
        make_levels_figure(tmp_path, images, tmp_path / "a.png", image="a", crop=crop, device="cpu")
    for (_, whole), (_, part) in zip(*shown.values(), strict=True):
        np.testing.assert_allclose(whole[:, :, 9:20, 5:33], part, atol=1e-4)


def test_a_crop_of_a_large_image_is_computed_with_its_surroundings_on_the_models_grid(monkeypatch):
    monkeypatch.setattr(levels, "CONTEXT_PIXELS", 20)
    computed, shown = levels.add_context([(1000, 1100), (5, 30)], (3000, 40), 8, "a")
    assert computed == [slice(976, 1120), slice(0, 40)]
    assert shown == [slice(24, 124), slice(5, 30)]


def test_png_and_svg_are_written(tmp_path, images_folder, monkeypatch):
    monkeypatch.setattr(reporting, "SAMPLES_PER_LEVEL", reporting.MAX_SHOWN_SAMPLES)
    save_model(build(2), tmp_path)
    make_levels_figure(tmp_path, images_folder(a=noisy(16, 20)), tmp_path / "out" / "b.c.png", image="a", device="cpu")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.c.png", "b.c.svg"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": "a.jpg"}, r"output: found 'a.jpg', allowed: a name that ends in .png"),
        ({"crop": [(0, 8)]}, r"crop: found 0:8, allowed: first:stop for each axis of a, within \(16, 20\) pixels"),
        ({"crop": [(0, 17), (0, 4)]}, "crop: found 0:17 0:4"),
        ({"crop": [(4, 4), (0, 4)]}, "crop: found 4:4 0:4"),
        ({"image": "b"}, "images: found 'b'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(tmp_path, images_folder, change, message):
    save_model(build(1), tmp_path)
    keys = {"output": "a.png", "image": "a"} | change
    with pytest.raises(UserError, match=message):
        make_levels_figure(tmp_path, images_folder(a=noisy(16, 20)), Path(keys.pop("output")), device="cpu", **keys)
