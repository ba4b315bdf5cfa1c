"""What a training does with the constants of its method, and what switches each of them off."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

import dvlae.training.loop
from dvlae.config.settings import Settings, TrainSettings
from dvlae.config.training import TrainingSettings
from dvlae.models.files import load_model
from dvlae.training.crops import RandomCrops, validation_batches
from dvlae.training.objectives.elbo import Objective
from dvlae.training.optimizers import Muon, build_optimizer, orthogonalise
from dvlae.training.schedule import Schedule, count_plateaus
from dvlae.training.state import TrainingState
from dvlae.training.train import train
from untrained import build


def trained(patches, model, **training) -> tuple[pd.DataFrame, dict]:
    """Train, and return the history and the record."""
    usual = {"patch_size": 16, "batch_size": 2, "max_steps": 4, "workers": 1}
    settings = TrainSettings.model_validate(
        {"model": {"levels": 2, "channels": 8, "latent_channels": 4}, "training": usual | training, "device": "cpu"}
    )
    train(patches, model, receptive_field=8, noise_direction="x", seed=0, checkpoints=None, settings=settings)
    return pd.read_csv(model / "history.csv"), json.loads((model / "run.json").read_text())


@pytest.mark.parametrize("patience", [1, 3])
def test_a_plateau_is_where_pytorch_sees_one(patience):
    losses = np.random.default_rng(0).normal(size=60).cumsum().tolist()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, threshold=0, eps=0)
    schedule = Schedule(
        TrainingSettings(
            schedule="plateau", plateau_patience=patience, plateau_factor=0.5, learning_rate=1.0, warm_up_steps=0
        ),
        50,
    )
    for number, loss in enumerate(losses, 1):
        theirs.step(loss)
        assert schedule.learning_rate(9, 0, losses[:number]) == optimizer.param_groups[0]["lr"]
    assert count_plateaus(losses, patience) > 2


def test_a_plateau_does_not_follow_the_time_that_is_left():
    schedule = Schedule(TrainingSettings(schedule="plateau", max_minutes=1), 50)
    assert schedule.learning_rate(5000, 59) == schedule.learning_rate(5000, 0) == 0.01
    assert schedule.learning_rate(0, 0) == pytest.approx(0.01 / 100)


def test_without_warm_ups_rate_and_weight_are_whole_from_the_start():
    without = Schedule(TrainingSettings(warm_up_steps=0, kl_warm_up_steps=0), 50)
    assert (without.learning_rate(0, 0), without.kl_weight(0, 0.0)) == (0.01, 1)
    longest = Schedule(TrainingSettings(max_steps=100, warm_up_fraction=0.5, kl_warm_up_steps=500), 50)
    assert longest.kl_weight(24, 0.0) == 0.5


@pytest.mark.parametrize(("minutes", "step", "seconds", "weight"), [
    (3, 49, 5.0, 0.278), (3, 49, 9.0, 0.5), (3, 49, 18.0, 1.0), (3, 499, 9.0, 1.0), (60, 249, 100.0, 0.5),
])  # fmt: skip
def test_a_warm_up_takes_its_steps_and_at_most_its_share_of_the_time(minutes, step, seconds, weight):
    schedule = Schedule(TrainingSettings(max_minutes=minutes), 50)
    assert schedule.kl_weight(step, seconds) == pytest.approx(weight, abs=1e-3)


def test_a_warm_up_of_a_training_that_its_steps_limit_does_not_depend_on_time():
    schedule = Schedule(TrainingSettings(max_minutes=3, max_steps=100), 50)
    assert schedule.kl_weight(4, 0.0) == schedule.kl_weight(4, 100.0) == 0.5


@pytest.mark.parametrize("optimizer", ["muon", "adamax"])
def test_on_plateaus_the_signal_decoder_has_a_rate_of_its_own(optimizer):
    model = build()
    settings = TrainingSettings(optimizer=optimizer, schedule="plateau")
    state = TrainingState(Objective(model), build_optimizer(model, settings), settings)
    state.set_learning_rates({"elbo": 0.5, "mse": 0.25})
    rates = {id(p): group["lr"] for group in state.optimizer.param_groups for p in group["params"]}
    own = {id(parameter) for parameter in model.signal_decoder.parameters()}
    assert rates == {id(p): 0.25 if id(p) in own else 0.5 for p in model.parameters()}
    assert all("follows" not in group for group in build_optimizer(model, TrainingSettings()).param_groups)


@pytest.mark.parametrize("optimizer", ["muon", "adamax"])
def test_the_groups_of_the_signal_decoder_step_as_all_together_do(optimizer):
    models = []
    for schedule in ("cosine", "plateau"):
        torch.manual_seed(0)
        models.append(build())
        stepping = build_optimizer(models[-1], TrainingSettings(optimizer=optimizer, schedule=schedule))
        for _ in range(3):
            for parameter in models[-1].parameters():
                parameter.grad = torch.cos(100 * parameter.detach())
            stepping.step()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_decays_reach_the_optimiser():
    adamax = build_optimizer(build(), TrainingSettings(optimizer="adamax", betas=[0.5, 0.6]))
    assert tuple(adamax.param_groups[0]["betas"]) == (0.5, 0.6)
    matrix, gradients = torch.nn.Parameter(torch.zeros(4, 3)), torch.randn(2, 4, 3)
    muon = Muon([matrix], lr=1.0, momentum=0.0)
    for gradient in gradients:
        before, matrix.grad = matrix.detach().clone(), gradient
        muon.step()
    torch.testing.assert_close(before - matrix.detach(), 0.2 * math.sqrt(4) * orthogonalise([gradients[1:]])[0][0])
    vectors = [torch.nn.Parameter(torch.zeros(3)) for _ in range(2)]
    stepping = [Muon(vectors[:1], lr=0.1, betas=(0.5, 0.6)), torch.optim.Adam(vectors[1:], lr=0.1, betas=(0.5, 0.6))]
    for gradient in torch.randn(3, 3):
        for vector, optimizer in zip(vectors, stepping, strict=True):
            vector.grad = gradient
            optimizer.step()
    torch.testing.assert_close(*(vector.detach() for vector in vectors))


def test_without_averaging_the_weights_are_the_last_ones(patches, tmp_path, monkeypatch):
    models = []
    kept = TrainingState.update_average
    monkeypatch.setattr(TrainingState, "update_average", lambda self, n: [kept(self, n), models.append(self.model)])
    trained(patches(), tmp_path / "model", max_steps=12, average_decay=0.0)
    saved, last = load_model(tmp_path / "model").state_dict(), models[-1].state_dict()
    assert all(torch.equal(saved[name], last[name]) for name in saved if saved[name].is_floating_point())


def test_gradients_are_clipped_to_the_norm_or_not_at_all(patches, tmp_path, monkeypatch):
    norms = []
    monkeypatch.setattr(dvlae.training.loop, "clip_gradients", lambda model, norm: norms.append(norm))
    folder = patches()
    trained(folder, tmp_path / "clipped", gradient_clip_norm=0.5)
    assert norms == [0.5] * 4
    trained(folder, tmp_path / "free", gradient_clip_norm=None)
    assert len(norms) == 4


def test_without_flips_crops_are_as_they_are():
    rows = np.arange(16, dtype="f4")[:, None].repeat(16, axis=1)[None, None]
    crops = RandomCrops(rows, crop=(8, 8), batch_size=4, seed=0, noise_direction="x", flips=False)
    assert all((np.diff(crops.batch(step).numpy(), axis=2) == 1).all() for step in range(20))


@pytest.mark.parametrize("most, count", [(32, 32), (5, 5), (None, 40)])
def test_at_most_so_many_patches_are_validated(most, count):
    settings = TrainingSettings(max_validation_patches=most)
    batches = validation_batches(np.zeros((40, 1, 16, 16), "f4"), None, (4, 4), (16, 16), settings)
    assert sum(len(batch) for batch, _ in batches) == count


def test_an_epoch_covers_the_pixels_but_has_at_least_its_steps(patches, tmp_path):
    folder = patches()
    pixels = tifffile.imread(folder / "train.tif").size
    for least in (1, 20):
        history, _ = trained(folder, tmp_path / str(least), max_steps=20, min_epoch_steps=least)
        assert history.step[0] == max(least, pixels // (2 * 16**2))


def test_the_direct_denoiser_learns_from_its_share_of_a_batch(monkeypatch):
    seen = []
    module = dvlae.training.objectives.elbo
    loss = module.distillation_loss
    monkeypatch.setattr(
        dvlae.training.objectives.elbo,
        "distillation_loss",
        lambda *inputs: [seen.append(len(inputs[2])), loss(*inputs)][1],
    )
    for share in (0.25, 1.0):
        Objective(build(direct_denoiser="mean"), direct_fraction=share)(torch.rand(8, 1, 16, 16), 1.0)
    assert seen == [2, 8]


def test_every_constant_is_recorded(patches, tmp_path):
    changed = {"schedule": "plateau", "plateau_patience": 7, "average_decay": 0.0, "gradient_clip_norm": None}
    _, record = trained(patches(), tmp_path / "model", **changed)
    recorded = record["settings"]["training"]
    assert recorded.keys() == TrainingSettings.model_fields.keys() - {"workers", "max_patch_pixels", "rescale"}
    assert changed.items() <= recorded.items()
    assert recorded["kl_warm_up_steps"] == Settings().training.kl_warm_up_steps == 500
