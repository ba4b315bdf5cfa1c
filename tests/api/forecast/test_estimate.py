import re

import pytest

from dvlae.api.forecast import estimate as module
from dvlae.api.forecast.estimate import estimate
from dvlae.api.forecast.measure import Filtering
from dvlae.config.loading import load_configuration
from dvlae.config.settings import PredictionSettings
from dvlae.system.errors import UserError
from grid import Grid


class Machine:
    """A machine that starts a step in 1 s, takes 10 steps in a second, and denoises a megapixel in 8 s."""

    def __init__(self, folder, device, cores):
        self.seconds_to_draw = 0.5
        self.device, self.cores, self.step_rates = device, cores, [10.0]

    def start(self, rule):
        return 1.0

    def steps_per_second(self, network):
        return 10.0

    def seconds_to_denoise(self, network, how, sides):
        return 8e-6

    def filtering(self, method, shape, direction, *, clean):
        return Filtering(1e-6, 2e-6)

    def seconds_to_evaluate(self, shape, *, clean):
        return 0.0

    def seconds_to_prepare(self, shape, settings, *, clean):
        return 0.0, 0.0


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """Return a grid of one network with two seeds and the noisy images; the dataset has 64 images of a megapixel."""
    monkeypatch.setattr(module, "Measurements", Machine)
    grid = Grid(tmp_path)
    file = tmp_path / "small.yaml"
    file.write_text(
        "{source: {kind: files}, noisy: nowhere, axes: YX, noise_direction: x, size: {images: 64, sides: [1000, 1000]}}"
    )
    return grid


def change(grid, **blocks):
    parts = {
        name: getattr(grid.settings, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in blocks.items()
    }
    grid.settings = grid.settings.model_copy(update=parts)


def rows(text: str) -> dict[str, tuple[int, str]]:
    found = re.findall(r"^(\w+) +(\d+) +(\d.*)$", text, re.MULTILINE)
    return {rule: (int(left), time) for rule, left, time in found}


def test_each_rule_has_its_jobs_and_their_time(grid):
    found = rows(estimate(grid.settings, 1))
    assert found["train"] == (2, "20 min"), "two of ten minutes"
    assert found["predict"] == (2, "17 min"), "two of 64 megapixels of 8 s each"
    assert found["run_method"] == (1, "2 min"), "one of 64 megapixels of 2 s each"
    assert found["evaluate"] == (3, "3 s")
    assert {
        name: found[name][0] for name in ("prepare", "extract_patches", "register", "diagnose", "tables")
    } == dict.fromkeys(("prepare", "extract_patches", "register", "diagnose", "tables"), 1)
    assert "simulate" not in found


@pytest.mark.parametrize(("cores", "total"), [(1, "40 min"), (2, "21 min")])
def test_the_sum_is_that_of_the_jobs_that_run_at_a_time(grid, cores, total):
    text = estimate(grid.settings, cores)
    assert f"in all about {total} with {cores} core" in text
    assert "at a time, with 10 steps in a second each" in text


def test_what_is_done_is_not_estimated_again(grid):
    grid.trained(seed=0)
    grid.measured("dvlae-rf4", seed=0)
    found = rows(estimate(grid.settings, 1))
    assert (found["train"][0], found["predict"][0], found["evaluate"][0]) == (1, 1, 2)
    grid.trained(seed=1)
    grid.measured("dvlae-rf4", seed=1)
    grid.measured("noisy")
    assert "nothing is left to do" in estimate(grid.settings, 1)


@pytest.mark.parametrize(
    ("limits", "time"),
    [
        ({"max_steps": 600}, "2 min"),
        ({"max_steps": 60000}, "20 min"),
        ({"max_epochs": 10, "max_minutes": None, "batch_size": 1, "patch_size": 512}, "8 min"),
    ],
)
def test_the_first_limit_ends_a_training(grid, limits, time):
    change(grid, training=limits, model={"levels": 2})
    assert rows(estimate(grid.settings, 1))["train"] == (2, time)


def test_gpus_take_the_networks_while_cores_take_the_rest(grid, monkeypatch):
    monkeypatch.setattr(module, "count_gpus", lambda: 2)
    monkeypatch.setattr(module, "device_name", lambda device: "a GPU")
    monkeypatch.setattr(module, "choose_device", lambda name: type("Device", (), {"type": "cuda"}))
    assert "in all about 19 min with 4 cores, 2 x a GPU; 2 trainings at a time" in estimate(grid.settings, 4)


def test_a_missing_device_is_a_user_error(grid, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    change(grid, device="cuda")
    with pytest.raises(UserError, match="device: found 'cuda'"):
        estimate(grid.settings, 1)


def test_a_dataset_of_unknown_size_is_named_and_left_out(grid, tmp_path):
    (tmp_path / "small.yaml").write_text("{source: {kind: files}, noisy: nowhere, axes: YX, noise_direction: x}")
    text = estimate(grid.settings, 1)
    assert "not in it: small; the images are not here yet" in text and rows(text) == {}
    assert "nothing is left" not in text


def test_methods_of_others_take_their_minutes_and_those_of_their_search(grid):
    change(grid, baselines=["structn2v"], receptive_fields=[4], prediction=PredictionSettings())
    found = rows(estimate(grid.settings, 1))
    assert found["run_method"] == (2, "20 min")
    assert found["search_method"] == (1, "8 min"), "four candidates of two minutes"


def test_the_night_is_known_before_anything_is_downloaded(monkeypatch, tmp_path, request):
    monkeypatch.setattr(module, "Measurements", Machine)
    monkeypatch.chdir(request.config.rootpath)
    elsewhere = {"results": str(tmp_path / "results"), "data": str(tmp_path / "data"), "device": "cpu"}
    text = estimate(load_configuration(["config/paper_night.yaml"]).model_copy(update=elsewhere), 1)
    assert rows(text)["train"][0] == rows(text)["predict"][0] == 87
    assert "not in it" not in text
