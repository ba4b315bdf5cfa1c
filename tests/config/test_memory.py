"""The estimate of a training's memory, compared with what was measured."""

from pathlib import Path

import pytest

from dvlae.config.loading import load_settings
from dvlae.config.settings import Settings
from dvlae.config.training import PROCESS, ModelSettings, TrainingSettings, training_memory

CONFIGURATIONS = Path(__file__).parents[2] / "config"
# The tensors of a step in 32-bit numbers, in GiB, and the crops of its batch (docs/benchmarks.md).
MEASURED = {
    "config": (0.03, 4),
    "kodak": (0.08, 4),
    "paper": (13.11, 4),
    "sem": (0.09, 4),
    "sem_ablation": (0.03, 4),
    "sem_gpu": (2.11, 16),
}


@pytest.mark.parametrize("name, measured, crops", [(name, *row) for name, row in MEASURED.items()])
def test_the_estimate_bounds_what_was_measured(name, measured, crops):
    settings = load_settings(Settings, CONFIGURATIONS / f"{name}.yaml")
    training = settings.training.model_copy(update={"batch_size": crops})
    # The sizes of the paper were measured with our own layers, and all without a direct denoiser.
    ours = {"direct_denoiser": False} | ({"network": "dvlae", "blocks": 2} if name == "paper" else {})
    tensors = training_memory(settings.model.model_copy(update=ours), training, 2, 1) - PROCESS
    assert measured * 2**30 <= tensors <= 2 * measured * 2**30


def test_workers_share_the_batch_but_not_the_program():
    one, four = (training_memory(ModelSettings(), TrainingSettings(), 2, workers) for workers in (1, 4))
    assert 3 * PROCESS < four - one < 3.1 * PROCESS


def test_a_direct_denoiser_is_a_second_network():
    tensors = [
        training_memory(ModelSettings(direct_denoiser=direct), TrainingSettings(), 2, 1) - PROCESS
        for direct in (False, "mean")
    ]
    assert tensors[1] == pytest.approx(2 * tensors[0], rel=1e-6)
