import json

import pytest

from dvlae.cli.functions import choose_receptive_field
from dvlae.system.errors import UserError


@pytest.fixture
def noise(tmp_path):
    """Return a function that writes what a diagnosis suggests."""

    def write(**found):
        (tmp_path / "noise.json").write_text(json.dumps(found))
        return tmp_path / "noise.json"

    return write


@pytest.mark.parametrize("given", [None, 0, 40])
def test_a_receptive_field_that_is_given_is_taken(given):
    assert choose_receptive_field(given, None) == given


@pytest.mark.parametrize("pixels", [0, 8])
def test_auto_takes_what_the_diagnosis_suggests(noise, pixels):
    assert choose_receptive_field("auto", noise(receptive_field=pixels, reason=None)) == pixels


def test_auto_is_refused_where_nothing_is_suggested(noise):
    path = noise(receptive_field=None, reason="10 pixels are too few")
    with pytest.raises(UserError, match=r"no receptive field \(10 pixels are too few\), allowed: .* with a number"):
        choose_receptive_field("auto", path)


def test_auto_needs_a_diagnosis_and_a_number_has_no_use_for_one(noise, tmp_path):
    with pytest.raises(UserError, match="found 'auto', allowed only with --noise"):
        choose_receptive_field("auto", None)
    with pytest.raises(UserError, match=r"--noise: found .*, allowed only with --receptive-field auto"):
        choose_receptive_field(4, noise())
    with pytest.raises(UserError, match="not what dvlae diagnose writes"):
        choose_receptive_field("auto", tmp_path / "missing.json")
