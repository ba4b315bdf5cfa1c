import pytest

from dvlae.api.forecast import measure
from dvlae.api.forecast.measure import Measurements, Network
from dvlae.config.dataset import EvaluationSettings
from dvlae.config.settings import ModelSettings, PredictionSettings, TrainingSettings, TrainSettings

SETTINGS = TrainSettings(
    model=ModelSettings(levels=2, channels=4, latent_channels=2),
    training=TrainingSettings(patch_size=16, batch_size=2, max_steps=9, workers=1),
    device="cpu",
)
NETWORK = Network(SETTINGS, 1, (16, 16), (32, 32), 4, "x")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "SECONDS_TO_TRAIN", 0.1)
    monkeypatch.setattr(measure, "SECONDS_TO_DENOISE", 0.01)
    monkeypatch.setitem(measure.FIRST_SIDES, 2, 16)
    monkeypatch.setitem(measure.SIDES, 2, 32)
    return Measurements(tmp_path, "cpu", 1)


def test_training_and_denoising_are_measured_once_for_each_network(machine, monkeypatch):
    rate = machine.steps_per_second(NETWORK)
    seconds = machine.seconds_to_denoise(NETWORK, PredictionSettings(samples=4), (48, 40))
    assert rate > 0 and seconds > 0
    monkeypatch.setattr(measure, "measure_rate", None)
    assert machine.steps_per_second(NETWORK) == rate
    assert machine.seconds_to_denoise(NETWORK, PredictionSettings(samples=4), (48, 40)) == seconds


def test_the_time_of_a_pixel_grows_with_the_samples_and_is_shared_by_cores(machine, monkeypatch):
    times = {1: 0.0, measure.FEW_SAMPLES: 3.0, measure.MORE_SAMPLES: 5.0}
    seconds = []
    monkeypatch.setattr(measure, "_denoise", lambda model, image, how, samples: seconds.append(times[samples]))
    monkeypatch.setattr(measure, "_time", lambda work: (work(), seconds[-1])[1])
    how = PredictionSettings(samples=16, flips=True, shifts=2)
    # A sample takes 0.5 s, and each of four views 2 s.
    assert machine.seconds_to_denoise(NETWORK, how, (16, 16)) == pytest.approx((4 * 2.0 + 16 * 0.5) / 256)
    machine.cores = 2
    more = how.model_copy(update={"samples": 20})
    assert machine.seconds_to_denoise(NETWORK, more, (16, 16)) == pytest.approx((4 * 2.0 + 20 * 0.5) / 256 / 2)


def test_other_steps_are_measured_with_and_without_clean_images(machine):
    for clean in (True, False):
        assert machine.seconds_to_evaluate((1, 99, 40), clean=clean) > 0
        assert min(machine.seconds_to_prepare((1, 99, 40), EvaluationSettings(), clean=clean)) > 0
    assert machine.filtering("median", (1, 99, 40), "x", clean=False).to_denoise > 0
    assert sum(machine.filtering("median-oracle", (1, 99, 40), "x", clean=False)) == 0, "it needs clean images"
    assert machine.start("prepare") > 0
