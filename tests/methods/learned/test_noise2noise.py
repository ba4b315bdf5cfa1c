from dataclasses import replace

import numpy as np
import pytest

from dvlae.data.canonical import read_noisy
from dvlae.methods.learned import noise2noise
from dvlae.methods.task import NotApplicableError
from dvlae.system.errors import UserError

SMALL = {"crop": 32, "batch": 4, "width": 8, "depth": 2, "max_steps": 60, "rate": 0.003}


def test_it_improves_repeated_frames_without_looking_at_clean_images(pairs, make_task, gain):
    images = pairs(count=2, frames=2)
    task = make_task(images, settings=SMALL)
    hidden = make_task(
        [replace(image, clean=image.clean.with_name("nowhere.tif")) for image in images],
        settings=SMALL | {"repeats": 2},
    )
    assert gain(task, noise2noise.fit(hidden)) > 2


def test_frames_with_one_clean_image_are_one_scene(pairs):
    images = pairs(count=2, frames=3)
    scenes = noise2noise.find_scenes(images, "auto")
    assert list(scenes.values()) == [images[:3], images[3:]]


def test_frames_of_a_file_are_one_scene_if_the_settings_say_so(pairs):
    images = pairs(count=2, with_clean=False)
    images = [replace(images[number // 2], frame=number % 2) for number in range(4)]
    assert len(noise2noise.find_scenes(images, "auto")) == 2
    assert list(noise2noise.find_scenes(images, "source").values()) == [images[:2], images[2:]]


def test_scenes_that_are_recorded_once_are_not_applicable(pairs, make_task):
    with pytest.raises(NotApplicableError, match="no scene is recorded twice"):
        noise2noise.fit(make_task(pairs()))


def test_images_of_one_scene_with_other_shapes_are_one_line(pairs, make_task):
    images = pairs(count=2)
    images[1] = replace(images[1], shape=(1, 60, 60))
    with pytest.raises(UserError, match=r"settings\.repeats: found 2, but 'image 0 0' has the shape"):
        noise2noise.fit(make_task(images, settings={"repeats": 2}))


def test_each_frame_predicts_another_one_of_its_scene(pairs, make_task, monkeypatch):
    images = pairs(count=1, frames=3)
    found = {}

    def cut(blocks, maps, crop):
        found.update(maps)
        raise RuntimeError

    monkeypatch.setattr(noise2noise, "cut_patches", cut)
    with pytest.raises(RuntimeError):
        noise2noise.fit(make_task(images))
    for image, following in zip(images, [*images[1:], images[0]], strict=True):
        np.testing.assert_array_equal(found[image.name][:2], np.concatenate([read_noisy(image), read_noisy(following)]))


def test_the_frames_of_one_scene_hold_out_the_same_places(pairs, make_task):
    fitted = noise2noise.fit(make_task(pairs(count=1, frames=3), settings=SMALL | {"crop": 16, "max_steps": 1}))
    assert fitted.description["held_out"] == "patches"
