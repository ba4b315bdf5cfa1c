"""`benchmarks/waterfall.py` measures each change from the paper to ours."""

import copy
import json
from itertools import pairwise

import mixed_network
import numpy as np
import pytest
import torch
import waterfall

from dvlae.config.dataset import EvaluationSettings
from dvlae.config.loading import load_settings
from dvlae.config.settings import Settings, TrainSettings
from dvlae.evaluation.target import Target
from dvlae.inference.direct import denoise_directly
from dvlae.inference.estimates import denoise
from dvlae.models.direct_denoiser import RefinedDenoiser
from dvlae.models.dvlae import build_model
from project import REPOSITORY

# Before they are made small.
SIZES = waterfall.SIZES
DESCRIPTION = {"mean": [100.0], "std": [40.0], "step": [1.0], "limits": [[0.0, 255.0]]}
CROP = (32, 32)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(waterfall, "SIZES", {"levels": 2, "channels": 8, "latent_channels": 4})


def seeded(model):
    """Return a model in evaluation mode, whose weights depend on their names alone."""
    for name, tensor in model.state_dict().items():
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        if name.endswith("running_var"):
            tensor.fill_(1.5)
        elif tensor.is_floating_point() and name not in DESCRIPTION:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.5)
    return model.eval()


def built(setup):
    torch.manual_seed(0)
    return setup.build(DESCRIPTION, CROP, "x")


@torch.no_grad()
def losses(model, image):
    torch.manual_seed(0)
    terms = model(image)
    return torch.stack([terms.log_likelihood, terms.kl, terms.mse])


@pytest.fixture
def image():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 1, *CROP)).astype(np.float32))


def packaged(setup, network):
    """Return the package's own model with the weights of a setup."""
    settings = TrainSettings.of(setup.settings).before_refinement()
    own = TrainSettings(
        model=settings.model.model_copy(update={"network": network}), training=settings.training, device="cpu"
    )
    model = build_model(own, DESCRIPTION, CROP, setup.receptive_field, "x")
    model.load_state_dict(seeded(built(setup)).state_dict())
    return model.eval()


@pytest.mark.parametrize(("step", "network"), [(waterfall.STEPS[0].name, "paper"), (waterfall.STEPS[-1].name, "dvlae")])
def test_the_chain_leads_from_the_papers_network_to_ours(step, network, image):
    setup = waterfall.setup_of(step)
    assert set(setup.parts) == (set(mixed_network.PARTS) if network == "dvlae" else set())
    assert torch.equal(losses(packaged(setup, network), image), losses(seeded(built(setup)), image))


def test_the_last_settings_are_those_of_the_sem_configuration():
    last, sem = (
        waterfall.setup_of(waterfall.STEPS[-1].name).settings,
        load_settings(Settings, REPOSITORY / "config/sem.yaml"),
    )
    assert last.receptive_fields == sem.receptive_fields and last.prediction == sem.prediction
    limits = {"max_minutes", "workers"}
    assert last.training.model_dump(exclude=limits) == sem.training.model_dump(exclude=limits)
    sizes = {"levels", "channels", "latent_channels", "network"}
    assert last.model.model_dump(exclude=sizes) == sem.model.model_dump(exclude=sizes)


def test_the_sizes_are_those_of_the_sem_configuration():
    sem = load_settings(Settings, REPOSITORY / "config/sem.yaml")
    assert sem.model.model_dump().items() >= SIZES.items()


def test_each_step_changes_what_is_computed(image):
    names = [step.name for step in waterfall.STEPS]
    pairs = [*pairwise(names), *((name, names[-1]) for name in list(waterfall.without(None, together=False))[1:])]
    for name, other in pairs:
        before, after = waterfall.setup_of(name), waterfall.setup_of(other)
        # Other networks; a refined denoiser begins as the same.
        sizes = [TrainSettings.of(setup.settings).before_refinement().model for setup in (before, after)]
        if before.parts != after.parts or sizes[0] != sizes[1]:
            found = [losses(seeded(built(setup)), image) for setup in (before, after)]
            assert not torch.allclose(*found, rtol=1e-4), name
        else:
            assert before.settings != after.settings, name


@pytest.mark.parametrize(("step", "network"), [("paper", "paper"), ("antithetic", "dvlae"), ("shifted", "dvlae")])
def test_samples_are_those_of_the_package(step, network):
    setup = waterfall.setup_of(step)
    image = np.random.default_rng(1).integers(0, 256, (1, 40, 33)).astype(np.float32)
    how = setup.settings.prediction
    found = waterfall.denoised(seeded(built(setup)), image, "image", 3, how)
    expected, _ = denoise(packaged(setup, network), image, name="image", seed=3, settings=how)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())


def test_refined_estimates_are_those_of_the_package():
    setup = waterfall.setup_of("refined")
    image = np.random.default_rng(1).integers(0, 256, (1, 40, 33)).astype(np.float32)
    how = setup.settings.prediction
    models = seeded(built(setup)), packaged(setup, "dvlae")
    denoiser = copy.deepcopy(RefinedDenoiser(models[1].ladder_vae, models[1].signal_decoder))
    for parameter in denoiser.parameters():
        parameter.data *= 0.9
    found = waterfall.denoised(models[0].with_direct_denoiser(denoiser), image, "image", 3, how)
    expected = denoise_directly(models[1].with_direct_denoiser(denoiser), image, name="image", settings=how)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())


@pytest.fixture
def run(monkeypatch, tmp_path, dataset):
    """Return a function that runs the script on two random images, and returns the records."""
    random = np.random.default_rng(2)
    clean = np.add.outer(np.arange(64), np.arange(64))[None].astype(np.float32)
    noisy = clean + random.normal(0, 20, clean.shape).astype(np.float32)
    patches = random.integers(0, 256, (6, 1, 64, 64)).astype(np.float32)
    target = Target.build(noisy, clean, EvaluationSettings(data_range=255))
    found = waterfall.Data(dataset(), DESCRIPTION, patches, patches[:2], [("image", noisy, target)])
    monkeypatch.setattr(waterfall.Data, "read", lambda *_: found)
    monkeypatch.setattr(waterfall, "RATE_SECONDS", 0.1)
    monkeypatch.setattr(waterfall, "SAMPLES", 2)
    # The machine may be busy.
    monkeypatch.setattr(waterfall, "MIN_SHARE", 0.0)

    def call(*arguments):
        paths = ["--output", str(tmp_path), "--pictures", str(tmp_path), "--minutes", "0.01"]
        monkeypatch.setattr("sys.argv", ["waterfall.py", *paths, *arguments])
        waterfall.main()
        return {file.stem: json.loads(file.read_text()) for file in tmp_path.glob("sem_line/0.01_minutes/*.json")}

    return call


def record_of(cell, psnr, precision="bf16"):
    """Return what is read of the record of a cell."""
    return {"identity": {"seed": cell.seed}, "psnr": psnr, "elbo": -1.0, "steps": 100, "precision": precision}


def test_finished_cells_are_kept_and_compared_with_the_step_before(run, monkeypatch, capsys):
    cells = run("--cells", "refined", "--seeds", "0")
    assert sorted(cells) == ["field_seed0", "refined_seed0"]
    assert list(cells["field_seed0"]["psnr"]) == ["field", "antithetic", "mirrored", "shifted"]
    for record in cells.values():
        assert record["stopped_by"] == "max_minutes" and record["steps"] > 0 and 0 < min(record["psnr"].values()) < 60
    table = capsys.readouterr().out
    gains = [cells["refined_seed0"]["psnr"]["refined"] - cells["field_seed0"]["psnr"]["shifted"]]
    assert f"{gains[0]:+.2f} dB" in table
    monkeypatch.setattr(waterfall.Cell, "run", lambda *_: pytest.fail("a finished cell is repeated"))
    assert run("--cells", "refined", "--seeds", "0") == cells
    with pytest.raises(SystemExit, match="1 of 2 cells are left"):
        run("--cells", "field", "--seeds", "0", "--kept")


def test_a_cell_with_too_little_of_its_core_is_repeated_and_not_kept(run, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(waterfall, "MIN_SHARE", 0.95)
    monkeypatch.setattr(waterfall.Cell, "run", lambda *_: calls.append(0) or {"processor_share": 0.9})
    with pytest.raises(SystemExit, match="1 of 1 cells are left"):
        run("--cells", "paper", "--seeds", "0")
    assert len(calls) == 1 + waterfall.REPETITIONS
    assert capsys.readouterr().out.count("had 90% of a core, is repeated") == len(calls)


def test_the_figure_and_the_table_have_all_steps(run, tmp_path, monkeypatch, capsys):
    names = [step.name for step in waterfall.STEPS]

    def kept(cell, _):
        psnr = {name: 30 + 0.1 * names.index(name) + 0.01 * cell.seed for name in cell.steps}
        return record_of(cell, psnr, precision="32")

    monkeypatch.setattr(waterfall.Cell, "kept", kept)
    run()
    assert capsys.readouterr().out.count("| +0.10 dB | +0.10, +0.10 |") == len(names) - 1
    assert (tmp_path / "waterfall.png").stat().st_size > 0


def test_all_changes_but_one_are_compared_with_all(run, tmp_path, monkeypatch, capsys):
    cells = run("--without", "--cells", "likelihood", "--seeds", "0")
    assert sorted(cells) == ["without_likelihood_seed0", "without_none_seed0"]
    whole, less = (cells[f"{name}_seed0"]["psnr"][name] for name in ("without_none", "without_likelihood"))
    difference = less - whole
    assert f"| {difference:+.2f} dB | {difference:+.2f} |" in capsys.readouterr().out

    def kept(cell, _):
        psnr = {name: 30.0 - 0.5 * (name != "without_none") for name in cell.steps}
        return record_of(cell, psnr)

    monkeypatch.setattr(waterfall.Cell, "kept", kept)
    run("--without")
    assert capsys.readouterr().out.count("| -0.50 dB | -0.50, -0.50 |") == len(waterfall.trainings()) - 2
    assert (tmp_path / "waterfall_without.png").stat().st_size > 0
    run("--without", "--together", "--cells", "merge", "decoder")
    assert capsys.readouterr().out.count("| -0.50 dB | -0.50, -0.50 |") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--together --cells merge", "--together goes with --without and --cells"),
        ("--without --together", "--together goes with --without and --cells"),
        ("--without --cells paper", "found paper, which --without never leaves out"),
        ("--minutes -1", "--minutes: found -1, allowed: a finite number > 0"),
        ("--minutes nan", "--minutes: found nan, allowed: a finite number > 0"),
        ("--seeds 0 -1", "--seeds: found -1, allowed: 0 or more"),
        ("--pictures nowhere", "--pictures: found nowhere, allowed: a folder that exists"),
        ("--dataset support", "--dataset: found support, which has no clean images"),
        ("--dataset nope", "nope"),
    ],
)
def test_words_that_make_no_sense_are_refused(run, capsys, words, told):
    with pytest.raises(SystemExit) as ended:
        run("--kept", *words.split())
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_step_that_the_processor_does_not_have_is_the_same_again(run, monkeypatch, capsys):
    def kept(cell, _):
        return record_of(cell, dict.fromkeys(cell.steps, 30.0), precision="32")

    monkeypatch.setattr(waterfall.Cell, "kept", kept)
    run("--cells", "bfloat16")
    assert "bfloat16: not there, the same again" in capsys.readouterr().out
    # Leaving it out is another training.
    run("--without", "--cells", "bfloat16")
    assert "not there" not in capsys.readouterr().out


def test_several_changes_are_left_out_together():
    without = waterfall.setup_of("without_merge+cosine")
    whole = waterfall.setup_of("without_none")
    assert set(whole.parts) - set(without.parts) == {"merge"}
    assert (without.settings.training.schedule, whole.settings.training.schedule) == ("plateau", "cosine")
    assert whole == waterfall.setup_of(waterfall.STEPS[-1].name)
