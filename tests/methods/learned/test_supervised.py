import numpy as np
import pytest

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_clean, read_noisy, write_image
from dvlae.methods.learned import supervised
from dvlae.methods.learned.blocks import divide
from dvlae.methods.task import NotApplicableError
from dvlae.system.errors import UserError

SMALL = {"crop": 32, "batch": 4, "width": 8, "depth": 2, "max_steps": 40, "rate": 0.003}


@pytest.mark.parametrize("network", [{"network": "unet"}, {"network": "dvlae", "optimizer": "muon", "rate": 0.01}])
def test_it_improves_images_that_no_network_has_seen(pairs, make_task, gain, network):
    task = make_task(pairs(), settings=SMALL | network | {"folds": 2})
    assert gain(task, supervised.fit(task)) > 2


def test_no_network_denoises_a_block_that_it_was_trained_or_validated_on(pairs, make_task, monkeypatch):
    seen = []
    train = supervised.train

    def spy(patches, *arguments, **options):
        seen.append(patches)
        return train(patches, *arguments, **options)

    monkeypatch.setattr(supervised, "train", spy)
    images = pairs(count=10)
    # Each image has its own grey values, by which its patches are known.
    for number, image in enumerate(images):
        write_image(image.clean, read_clean(image) + 1000 * number)
        write_image(image.noisy, read_noisy(image) + 1000 * number)
    fitted = supervised.fit(make_task(images, block=2, settings=SMALL | {"max_steps": 1, "folds": 3}))
    names = [image.name for image in images]
    denoised = []
    for patches, fold in zip(seen, fitted.description["trainings"], strict=True):
        levels = {
            round(float(patch.mean()) / 1000) for part in (patches.train, patches.validation) for patch in part[:, 1]
        }
        own = {names.index(name) for name in fold["denoised"]}
        assert levels == set(range(10)) - own
        assert {number // 2 for number in levels}.isdisjoint(number // 2 for number in own)
        denoised += fold["denoised"]
    assert sorted(denoised) == sorted(names)
    assert [len(fold["denoised"]) for fold in fitted.description["trainings"]] == [4, 4, 2]


def test_each_image_is_denoised_by_the_network_of_its_fold(pairs, make_task, monkeypatch):
    number = iter(range(10))

    class Marked:
        def __init__(self):
            self.number = next(number)

        def denoise(self, noisy):
            return np.full_like(noisy, self.number)

    record = {"steps": 1, "parameters": 1, "training_seconds": 0.0, "validation_loss": 1.0}
    monkeypatch.setattr(supervised, "train", lambda *arguments, **options: (Marked(), record))
    images = pairs(count=4)
    fitted = supervised.fit(make_task(images, settings={"folds": 2}))
    assert [fitted.denoise(image).mean() for image in images] == [0, 0, 1, 1]


def test_blocks_that_show_one_scene_are_one(pairs):
    images = pairs(count=3, frames=2)
    of_scenes = [[images[0], images[2]], [images[4], images[1]], [images[3]], [images[5]]]
    mixed = [image for block in of_scenes for image in block]
    blocks = divide(mixed, 2)
    assert sorted(len(block) for block in blocks) == [6]
    assert [len(block) for block in divide(images, 2)] == [2, 2, 2]
    assert [len(block) for block in divide(images, 1)] == [2, 2, 2]


def test_repeated_frames_of_one_scene_are_not_applicable(pairs, make_task):
    with pytest.raises(NotApplicableError, match="belong together"):
        supervised.fit(make_task(pairs(count=1, frames=3)))


def test_images_without_clean_ones_are_not_applicable(pairs, make_task):
    with pytest.raises(NotApplicableError, match="no clean image"):
        supervised.fit(make_task(pairs(with_clean=False)))


def test_the_clean_image_is_registered_and_in_the_units_of_the_noisy_one(pairs, make_task):
    image = pairs(count=1, shape=(1, 96, 96), along="none")[0]
    moved = np.roll(read_clean(image), (2, -1), (1, 2))
    write_image(image.clean, 3 * moved + 50)
    task = make_task(
        [image], evaluation=EvaluationSettings(register=True, fit="estimate_to_clean", border=8, data_range=150)
    )
    noisy, clean, weights = supervised._pair(image, task.targets)
    wanted = np.roll(moved[0], (-2, 1), (0, 1))[8:-8, 8:-8]
    assert np.sqrt(np.mean((clean - wanted) ** 2)) < 4
    np.testing.assert_array_equal(noisy, read_noisy(image)[0, 8:-8, 8:-8])
    assert (weights == 1).all()


def test_all_networks_learn_from_images_that_are_not_evaluated(pairs, make_task):
    images = pairs()
    task = make_task(
        images, evaluation=EvaluationSettings(images="2:", data_range=150), settings=SMALL | {"max_steps": 1}
    )
    first, second = supervised.fit(task).description["trainings"]
    assert (first["denoised"], second["denoised"]) == ([images[2].name], [images[3].name])
    for training, others in ((first, {0, 1, 3}), (second, {0, 1, 2})):
        # One block is held out for validation.
        assert {*training["images"]} < {images[number].name for number in others}
        assert len(training["images"]) == 2


def test_a_search_trains_one_network(pairs, make_task):
    fitted = supervised.fit(make_task(pairs(), searching=True, settings=SMALL | {"max_steps": 1}))
    assert len(fitted.description["trainings"]) == 1


def test_equal_seeds_give_equal_estimates_and_others_do_not(pairs, make_task):
    images = pairs(count=2)
    first, second, other = (
        supervised.fit(make_task(images, settings=SMALL | {"max_steps": 3}, seed=seed)).denoise(images[0])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_a_wrong_setting_is_one_line(pairs, make_task):
    with pytest.raises(UserError, match="settings: widht: "):
        supervised.fit(make_task(pairs(count=2), settings={"widht": 8}))
