"""From the same weights, with the same batches and noise, paper.yaml trains as the authors' code does."""

import numpy as np
import torch
from torch import distributions

import dvlae.training.objectives.elbo
from authors import build_theirs, load_authors_code
from dvlae.config.loading import load_settings
from dvlae.config.settings import Settings
from dvlae.models.files import load_model
from dvlae.models.imported.weights import import_weights
from dvlae.training.objectives.elbo import Objective
from dvlae.training.optimizers import build_optimizer
from dvlae.training.schedule import LOSSES, Schedule
from dvlae.training.state import TrainingState
from project import REPOSITORY

STEPS, SIDE = 6, 32


def sampler():
    """Return a function that samples latents, the same ones each time."""
    random = np.random.default_rng(1)
    return lambda mean, std: mean + std * torch.from_numpy(random.normal(size=tuple(mean.shape))).to(mean)


def test_paper_yaml_trains_as_the_authors_do(tmp_path, monkeypatch):
    theirs = build_theirs(load_authors_code(), side=SIDE)
    torch.save(theirs.state_dict(), tmp_path / "state.pt")
    import_weights(tmp_path / "state.pt", tmp_path / "model", mean=[100.0], std=[40.0])
    batches = torch.from_numpy(np.random.default_rng(0).poisson(100, (STEPS, 2, 1, SIDE, SIDE)).astype(np.float32))

    settings = load_settings(Settings, REPOSITORY / "config/paper.yaml").training
    objective = Objective(load_model(tmp_path / "model").train())
    state = TrainingState(objective, build_optimizer(objective.model, settings), settings)
    schedule, found, sample = Schedule(settings, 50), [], sampler()
    monkeypatch.setattr(dvlae.training.objectives.elbo, "sample_randomly", lambda level, mean, std: sample(mean, std))
    for step, batch in enumerate(batches):
        state.set_learning_rates(dict.fromkeys(LOSSES, schedule.learning_rate(step, 0)))
        loss, values = objective(batch, schedule.kl_weight(step, 0.0))
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        found.append([float(values["kl"]), -float(values["log_likelihood"])])

    parts = [[*theirs.vae.parameters(), *theirs.noise_model.parameters()], theirs.s_decoder.parameters()]
    optimizers, logged, sample_again = [torch.optim.Adamax(part) for part in parts], {}, sampler()
    monkeypatch.setattr(distributions.Normal, "rsample", lambda self, *_: sample_again(self.mean, self.stddev))
    # What Lightning's Trainer would do.
    theirs.optimizers, theirs.manual_backward = lambda: optimizers, lambda loss: loss.backward()
    theirs.log = lambda name, value: logged.setdefault(name, []).append(float(value.detach()))
    for step, batch in enumerate(batches):
        theirs.train().training_step(batch, step)
    expected = np.transpose([logged["train/kl_loss"], logged["train/reconstruction_loss"]])
    assert expected[-1].sum() < 0.9 * expected[0].sum()  # They learn.
    np.testing.assert_allclose(found, expected, rtol=1e-3)
