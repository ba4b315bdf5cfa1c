"""The commands of the methods from elsewhere, in this environment and, slowly, in their own."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dvlae.config.dataset import EvaluationSettings
from dvlae.config.methods import load_method
from dvlae.data.canonical import write_image
from dvlae.data.manifest import Image, write_manifest
from dvlae.data.outputs.reading import read_output
from dvlae.methods.environments import download_code, make_environment, read_ready
from dvlae.methods.run import Trial, run_method
from dvlae.methods.task import NotApplicableError
from skips import UNAVAILABLE

MIRROR = Path(os.environ.get("DVLAE_DATA_MIRROR", "no mirror"))
SHAPES = {
    "planes": [(1, 70, 90), (1, 41, 38)],
    "channels": [(3, 40, 33)] * 10,
    "volumes": [(1, 3, 18, 16)],
    "traces": [(1, 200), (1, 150)],
}
DIAGNOSIS = {"direction": "x", "correlation_length": 2, "receptive_field": 4, "reason": None}
# Minutes in which a network takes its first steps.
SHORT = 0.01


@pytest.fixture
def make_trial(tmp_path):
    """Return a function that lets a method try images of some shapes, in this environment."""

    def make(method, shapes, direction="x", noise=DIAGNOSIS, **changes):
        random = np.random.default_rng(0)
        images = [
            Image(f"b {i}", tmp_path / "images" / f"b {i}.tif", None, shape) for i, shape in enumerate(SHAPES[shapes])
        ]
        for image in images:
            write_image(image.noisy, 1000 + 50 * random.normal(size=image.shape))
        write_manifest(tmp_path / "images", images)
        (tmp_path / "noise.json").write_text(json.dumps(noise))
        code = tmp_path / "cosdd.json"
        trial = Trial.of(
            method,
            tmp_path / "images",
            tmp_path / "task",
            settings=EvaluationSettings(),
            noise=tmp_path / "noise.json",
            noise_direction=direction,
            seed=1,
            minutes=SHORT,
            device="cpu",
            code=code if code.exists() else None,
            cores=1,
        )
        return replace(trial, how=trial.how.model_copy(update={"environment": None, **changes}))

    return make


@pytest.fixture
def code(tmp_path):
    """Return the folder of the authors' code, as a step downloads it."""
    if not (MIRROR / "cosdd").is_dir():
        pytest.skip(UNAVAILABLE + "the authors' code of COSDD, in DVLAE_DATA_MIRROR")
    _, how, path = load_method("cosdd")
    download_code(path.parent / how.files, tmp_path / "data", tmp_path / "cosdd.json")
    ready = read_ready(tmp_path / "cosdd.json")
    assert ready.reason is None
    return ready.path


@pytest.fixture
def try_cosdd(make_trial, code, tmp_path, monkeypatch):
    """Return a function that lets a small COSDD try images here; without scikit-learn, whose import is all it needs."""
    stand_in = tmp_path / "here/sklearn/linear_model.py"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text("LinearRegression = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "here"))
    settings = load_method("cosdd")[1].settings | {"s-code-channels": 4, "crop-size": 32, "n-samples": 2}
    return lambda shapes, direction="x", **changes: make_trial("cosdd", shapes, direction, settings=settings | changes)


@pytest.mark.parametrize(
    ("shapes", "direction", "direct"),
    [
        ("planes", "y", False),
        ("channels", "none", True),
        pytest.param("volumes", "z", False, marks=pytest.mark.slow),
        pytest.param("traces", "x", False, marks=pytest.mark.slow),
    ],
)
def test_the_authors_code_estimates_images_of_any_shape(try_cosdd, shapes, direction, direct):
    trial = try_cosdd(shapes, direction, **{"use-direct-denoiser": direct})
    fitted = trial.fit()
    for image in trial.task.images:
        estimate = fitted.denoise(image)
        assert estimate.shape == image.shape
        # A network that has not learned anything returns about the mean of all pixels.
        assert abs(estimate.mean() - 1000) < 50
    assert np.isfinite(fitted.description["validation_loss"])
    assert fitted.description["steps"] > 0


def test_a_search_asks_the_authors_code_for_its_loss_only(try_cosdd):
    trial = try_cosdd("planes")
    fitted = trial.fit(searching=True)
    assert np.isfinite(fitted.description["validation_loss"])
    assert not list((trial.task.folder / "denoised").iterdir())


def test_tiles_cover_each_pixel_once_and_see_beyond_it(monkeypatch):
    monkeypatch.syspath_prepend(load_method("cosdd")[2].parent / "drivers")
    from cosdd import tiles

    sides, pixels, margin = (50, 37), 400, 8
    image = np.random.default_rng(0).normal(size=sides)
    joined, times = np.zeros(sides), np.zeros(sides)
    for seen, kept, place in tiles(sides, pixels, margin):
        joined[place] = image[seen][kept]
        times[place] += 1
        for whole, part, side in zip(seen, place, sides, strict=True):
            assert whole == slice(max(0, part.start - margin), min(side, part.stop + margin))
    np.testing.assert_array_equal(joined, image)
    assert (times == 1).all()


@pytest.mark.parametrize(
    ("method", "shapes", "direction", "noise", "reason"),
    [
        ("careamics-n2v2", "traces", "x", {}, "not traces"),
        ("careamics-structn2v", "planes", "none", {}, "noise_direction is none"),
        ("careamics-structn2v", "volumes", "z", {}, "noise_direction is z"),
        ("careamics-structn2v", "planes", "y", {}, "not correlated along y"),
        ("careamics-structn2v", "planes", "x", {"correlation_length": 0}, "not correlated along x"),
        ("careamics-structn2v", "planes", "x", {"correlation_length": None, "reason": "too few pixels"}, "too few"),
    ],
)
def test_careamics_says_why_it_does_not_apply(make_trial, method, shapes, direction, noise, reason):
    with pytest.raises(NotApplicableError, match=reason):
        make_trial(method, shapes, direction, DIAGNOSIS | noise).fit()


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Return a function that makes the environment of a method, and returns its record.

    The variable ``DVLAE_TEST_ENVIRONMENTS`` names a folder that keeps environments for the next time.
    """
    folder = Path(os.environ.get("DVLAE_TEST_ENVIRONMENTS") or tmp_path_factory.mktemp("environments"))

    def make(method):
        _, how, path = load_method(method)
        requirements = path.parent / how.environment
        record = folder / f"{requirements.parent.name}.json"
        make_environment(requirements, record)
        return record

    return make


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cosdd", "careamics-n2v2", "careamics-structn2v"])
@pytest.mark.parametrize("shapes", ["planes", "channels", "volumes"])
def test_a_method_runs_in_its_own_environment(make_trial, code, environment, tmp_path, method, shapes):
    trial = make_trial(method, shapes)
    output = tmp_path / "run/denoised"
    run_method(
        method, tmp_path / "images", output, settings=EvaluationSettings(), noise=tmp_path / "noise.json",
        noise_direction="x", minutes=2 * SHORT, device="cpu", environment=environment(method),
        code=tmp_path / "cosdd.json" if method == "cosdd" else None, cores=1,
    )  # fmt: skip
    record = json.loads((tmp_path / "run/method.json").read_text())
    assert (record["status"], record["reason"]) == ("done", None)
    assert np.isfinite(record["chosen"]["validation_loss"])
    assert record["chosen"].get("span") == (5 if method == "careamics-structn2v" else None)
    for image in trial.task.images:
        assert abs(read_output(output, image).mean() - 1000) < 100


@pytest.mark.slow
def test_careamics_does_not_run_hdn_as_the_method_file_says(environment):
    line = "from careamics.lightning.modules.get_module import get_module_cls; get_module_cls('hdn')"
    python = read_ready(environment("careamics-n2v2")).path
    found = subprocess.run([python, "-c", line], capture_output=True, text=True)
    assert found.returncode != 0
    assert "NotImplementedError: Support for hdn has not been implemented yet." in found.stderr
    assert "NotImplementedError" in load_method("hdn")[1].unavailable
