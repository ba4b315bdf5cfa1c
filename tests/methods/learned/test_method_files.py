import pytest

from dvlae.config.messages import validate
from dvlae.config.methods import load_method
from dvlae.methods.learned.blind_spot import BlindSpotSettings
from dvlae.methods.learned.noise2noise import Noise2NoiseSettings
from dvlae.methods.learned.supervised import SupervisedSettings


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("n2v", BlindSpotSettings),
        ("structn2v", BlindSpotSettings),
        ("n2n", Noise2NoiseSettings),
        ("supervised", SupervisedSettings),
        ("supervised-dvlae", SupervisedSettings),
    ],
)
def test_the_methods_take_the_settings_and_candidates_of_their_files(name, settings):
    _, how, _ = load_method(name)
    for candidate in how.candidates:
        validate(settings, how.settings | candidate, name)
    # Only what leaves the meaning of the loss alone is searched.
    assert set().union(*how.candidates) <= {"rate", "width", "depth"}
    assert how.trains and how.citation and how.source and how.tuned_by
