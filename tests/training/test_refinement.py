import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import dvlae.training.train
from dvlae.config.messages import validate
from dvlae.config.settings import TrainSettings
from dvlae.models.files import load_model
from dvlae.training.objectives import refinement
from dvlae.training.objectives.refinement import Refinement
from dvlae.training.train import train
from dvlae.training.workers import Workers
from untrained import build, initial

CORRELATION = 0.6


def correlated(random, shape, std=1.0):
    """Return Gaussian noise (N, 1, Y, X) that is correlated along x."""
    noise = random.normal(size=shape)
    for x in range(1, shape[-1]):
        noise[..., x] = CORRELATION * noise[..., x - 1] + np.sqrt(1 - CORRELATION**2) * noise[..., x]
    return torch.from_numpy((std * noise).astype("f4"))


class Shrinking(nn.Module):
    """A denoiser that multiplies by a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.8, 1.0])
def test_the_loss_is_the_squared_error_to_the_clean_image(monkeypatch, factor):
    random = np.random.default_rng(0)
    shape = (64, 1, 32, 32)
    clean, noise, drawn = (correlated(random, shape, std) for std in (1.5, 1.0, 1.0))
    objective = Refinement(build(), Workers(), 64)
    noisy = objective.teacher.denormalise(clean + noise)
    monkeypatch.setattr(objective, "_sample_noise", lambda x, *_: (drawn, x))
    found = objective._error(Shrinking(factor), noisy, None, range(64), 64).item()
    # The denoiser sees a little more noise than the image has.
    more = (factor * refinement.ADDED_NOISE) ** 2
    expected = (factor * (clean + noise) - clean).square().mean().item() + more
    assert found == pytest.approx(expected, abs=0.03)


def test_sampled_noise_ends_where_the_recording_does():
    model = build(limits=(60.0, 80.0))  # A part of what it would sample, and all of what is recorded.
    objective = Refinement(model, Workers(), 2)
    x = model.pad(model.normalise(torch.full((2, 1, 16, 16), 60.0)))
    limits, signals = objective.teacher.limits, []
    objective.teacher.signal_decoder.register_forward_hook(lambda *call: signals.append(call[-1]))
    noise, _ = objective._sample_noise(x, range(2), 2)
    assert (noise + signals[-1] >= limits.lower - 1e-5).all()
    assert (noise + signals[-1] == limits.lower).any()


def test_a_denoiser_is_left_out_where_the_noise_of_the_model_is_too_strong(patches, tmp_path, monkeypatch, caplog):
    folder = patches()
    monkeypatch.setattr(dvlae.training.train, "MAX_EXCESS", -10.0)
    assert run(folder, tmp_path / "model", refine_fraction=0.3).direct_denoiser is None
    assert "refine: WARNING: the refined denoiser is left out" in caplog.text
    assert json.loads((tmp_path / "model/run.json").read_text())["refinement_steps"] == 3


def test_what_does_not_count_is_not_in_the_loss():
    objective = Refinement(build(), Workers(), 2)
    batch, counts = torch.rand(2, 1, 16, 16), torch.ones(2, 1, 16, 16)
    counts[0] = 0
    torch.manual_seed(0)
    half = objective.evaluate(batch, counts)["error"]
    other = batch.clone()
    other[0, :, 3] = 7.0
    torch.manual_seed(0)
    assert objective.evaluate(other, counts)["error"].item() == pytest.approx(half.item(), rel=1e-4)


@dataclass
class Share:
    """A worker that has these crops of a batch."""

    crops: range

    def share(self, total):
        return self.crops


def test_the_loss_of_a_batch_is_the_mean_over_the_workers():
    model, batch = build(), torch.rand(4, 1, 16, 16)

    def loss(crops):
        torch.manual_seed(0)
        return Refinement(model, Share(crops), 4)(batch[crops.start : crops.stop], 1.0)[0].item()

    assert (loss(range(1)) + 3 * loss(range(1, 4))) / 4 == pytest.approx(loss(range(4)), rel=1e-4)


def run(folder, model, start_from=None, **training):
    usual = {"patch_size": 16, "batch_size": 4, "max_steps": 10, "min_epoch_steps": 2}
    sizes = {"levels": 2, "channels": 8, "latent_channels": 4, "direct_denoiser": "refined"}
    settings = validate(TrainSettings, {"model": sizes, "training": usual | training, "device": "cpu"}, "test")
    how = {"receptive_field": 8, "noise_direction": "x", "seed": 0, "checkpoints": None, "cores": 1}
    train(folder, model, settings=settings, start_from=start_from, **how)
    return load_model(model)


def test_a_training_ends_with_its_refinement(patches, tmp_path):
    folder = patches()
    model = run(folder, tmp_path / "model", refine_fraction=0.3)
    record = json.loads((tmp_path / "model/run.json").read_text())
    assert (record["steps"], record["refinement_steps"], record["refinement_stopped_by"]) == (7, 3, "max_steps")
    assert pd.read_csv(tmp_path / "model/history.csv").step.max() == 7
    assert list(pd.read_csv(tmp_path / "model/refinement.csv").columns[-2:]) == ["train_error", "val_error"]
    refined, own = model.direct_denoiser.state_dict(), model.state_dict()
    changed = [name for name, tensor in refined.items() if not torch.equal(tensor, own[name])]
    assert any(name.startswith("signal_decoder") for name in changed)
    assert any(name.startswith("ladder_vae") for name in changed)
    assert not [name for name in changed if "prior" in name]


def test_a_refinement_goes_on_after_an_epoch(patches, tmp_path):
    run(patches(), tmp_path / "model", max_steps=40, refine_fraction=0.8)
    history = pd.read_csv(tmp_path / "model/refinement.csv")
    assert len(history) >= 2 and history.step.max() == 32


def test_the_model_is_that_of_a_training_of_its_length(patches, tmp_path):
    folder = patches()
    refined = run(folder, tmp_path / "refined", refine_fraction=0.3).state_dict()
    sizes = {"levels": 2, "channels": 8, "latent_channels": 4}
    limits = {"patch_size": 16, "batch_size": 4, "max_steps": 7, "min_epoch_steps": 2}
    settings = validate(TrainSettings, {"model": sizes, "training": limits, "device": "cpu"}, "test")
    how = {"receptive_field": 8, "noise_direction": "x", "seed": 0, "checkpoints": None, "cores": 1}
    train(folder, tmp_path / "plain", settings=settings, **how)
    for name, tensor in load_model(tmp_path / "plain").state_dict().items():
        assert torch.equal(tensor, refined[name]), name


def test_two_workers_refine_together(patches, tmp_path):
    folder = patches()
    run(folder, tmp_path / "model", workers=2)
    assert pd.read_csv(tmp_path / "model/refinement.csv").val_error.between(0, 2).all()


@pytest.mark.parametrize(
    "sizes",
    [
        {"autoregression": "linear"},
        {"network": "paper"},
        {"noise_direction": "none", "receptive_field": 0},
        {"noise_direction": "y", "image_channels": 2, "limits": (0.0, 255.0)},
        {"dimensions": 1},
        {"dimensions": 3, "noise_direction": "z"},
    ],
    ids=str,
)
def test_every_kind_of_model_can_be_refined(sizes):
    model = initial(**sizes)
    batch = 60 + 20 * torch.randn(2, model.architecture.image_channels, *[16] * model.architecture.dimensions)
    objective = Refinement(model, Workers(), 2)
    loss, _ = objective(batch, 1.0)
    loss.backward()
    missing = [
        name for name, weight in objective.model.named_parameters() if weight.requires_grad and weight.grad is None
    ]
    assert not missing
    assert torch.isfinite(loss)


def test_the_noise_does_not_grow_along_a_row():
    model = initial(autoregression="linear")
    # Each pixel is twice the one before. That of images as large was never seen.
    weight = model.autoregressive_decoder.regression.weight.data.fill_(0)
    weight[..., -1] = 2
    objective = Refinement(model, Workers(), 2)
    x = torch.randn(2, 1, 16, 64)
    noise, _ = objective._sample_noise(x, range(2), 2)
    assert noise.abs().max() < 4 * x.abs().max()


def test_where_the_recording_ends_the_expectation_beyond_is_learned(monkeypatch):
    objective = Refinement(initial(limits=(None, 80.0)), Workers(), 1)
    x = objective.teacher.normalise(torch.full((1, 1, 16, 16), 80.0))
    noise, wanted = objective._sample_noise(x, range(1), 1)
    assert (wanted > x).all()
    # The noise goes on beyond the end.
    assert noise.mean().abs() < 3 * noise.std() / 4


def test_a_training_starts_from_a_refined_model(patches, tmp_path):
    folder = patches()
    run(folder, tmp_path / "first")
    run(folder, tmp_path / "second", start_from=tmp_path / "first")
    assert load_model(tmp_path / "second").architecture.direct_denoiser == "refined"
