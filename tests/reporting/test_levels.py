from pathlib import Path

import numpy as np
import pytest

import dvlae.reporting.levels as reporting
from dvlae.models.files import save_model
from dvlae.reporting.levels import make_levels_figure
from dvlae.system.errors import UserError
from untrained import build, noisy


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
