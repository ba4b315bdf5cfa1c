import json
import pickle
from pathlib import Path

import pytest
import torch

from dvlae.models.architecture import Architecture
from dvlae.models.dvlae import DVLAE
from dvlae.models.files import load_model, load_weights, save_model
from dvlae.system.errors import UserError
from dvlae.system.hashes import sha256


@pytest.fixture
def saved(tmp_path):
    model = DVLAE(Architecture(2, 4, 2, 2, 1, 3, 8, "y"), [1.0, 2.0], [3.0, 4.0], [0.5, 0.0]).eval()
    save_model(model, tmp_path)
    return tmp_path, model


def test_a_model_comes_back_as_it_was(saved):
    folder, model = saved
    again = load_model(folder)
    assert again.architecture == model.architecture
    assert not again.training
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_model_that_halves_its_axes_differently_comes_back_as_it_was(tmp_path):
    model = DVLAE(Architecture(1, 4, 2, 3, 1, 3, 8, "y", stride=(2, 8)), [1.0], [3.0], [0.5])
    save_model(model, tmp_path)
    assert load_model(tmp_path).ladder_vae.strides == [(1, 2), (1, 4), (2, 8)]


def test_a_model_of_an_earlier_version_halves_all_axes(saved):
    folder, model = saved
    file = folder / "model.json"
    description = json.loads(file.read_text())
    del description["architecture"]["stride"]
    file.write_text(json.dumps(description))
    assert load_model(folder).stride == model.stride == (4, 4)


@pytest.mark.parametrize("stride", [[4], [3, 4], [0, 4], [8, 4], [-4, 4], ["4", 4], 4])
def test_strides_that_the_levels_do_not_have_are_refused(saved, stride):
    folder, _ = saved
    file = folder / "model.json"
    description = json.loads(file.read_text())
    description["architecture"]["stride"] = stride
    file.write_text(json.dumps(description))
    with pytest.raises(UserError, match="not a model that can be read"):
        load_model(folder)


def test_limits_come_back_and_those_of_an_earlier_version_are_none(tmp_path):
    scale = [1.0, 2.0], [3.0, 4.0], [0.5, 0.0]
    save_model(DVLAE(Architecture(2, 4, 2, 2, 1, 3, 8, "y"), *scale, [(None, 255.0), (0.0, None)]), tmp_path)
    again = load_model(tmp_path)
    assert again.lower.flatten().tolist() == [-torch.inf, 0]
    assert again.upper.flatten().tolist() == [255, torch.inf]
    assert torch.equal(again.limits.upper, (again.upper - again.mean) / again.std)
    file = tmp_path / "model.json"
    description = json.loads(file.read_text())
    del description["limits"]
    file.write_text(json.dumps(description))
    earlier = load_model(tmp_path)
    assert earlier.limits is None
    assert earlier.state_dict().keys() == again.state_dict().keys()


def test_truncated_weights_are_refused(saved):
    folder, _ = saved
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        load_model(folder)


@pytest.mark.parametrize("change", [{"architecture": {"channels": 3}}, {"mean": "none"}, {"weights_sha256": None}])
def test_altered_description_is_refused(saved, change):
    folder, _ = saved
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError):
        load_model(folder)


def test_a_later_format_is_refused_by_name(saved):
    folder, _ = saved
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        load_model(folder)


def test_a_missing_model_is_one_line(tmp_path):
    with pytest.raises(UserError, match="not the folder of a trained model"):
        load_model(tmp_path)


class Trap:
    """A pickle of it makes a file when it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_weights_that_are_a_pickle_are_refused_and_not_run(saved):
    folder, _ = saved
    weights, description = folder / "weights.safetensors", folder / "model.json"
    weights.write_bytes(pickle.dumps(Trap(folder / "trapped")))
    description.write_text(json.dumps(json.loads(description.read_text()) | {"weights_sha256": sha256(weights)}))
    with pytest.raises(UserError, match="not a model that can be read"):
        load_model(folder)
    assert not (folder / "trapped").exists()


def test_weights_are_taken_over_but_not_the_scale_of_grey_values(saved):
    folder, model = saved
    other = DVLAE(model.architecture, [7.0, 8.0], [9.0, 10.0], [1.0, 2.0])
    load_weights(other, folder)
    assert other.mean.flatten().tolist() == [7, 8] and other.step.flatten().tolist() == [1, 2]
    assert all(map(torch.equal, other.parameters(), model.parameters()))


def test_weights_of_other_sizes_are_refused_with_both(saved):
    folder, _ = saved
    other = DVLAE(Architecture(2, 6, 2, 2, 1, 3, 4, "y"), [1.0, 2.0], [3.0, 4.0], [0.5, 0.0])
    before = [weight.clone() for weight in other.parameters()]
    with pytest.raises(UserError, match="found channels 4, receptive_field 8, allowed: channels 6, receptive_field 4"):
        load_weights(other, folder)
    assert all(map(torch.equal, other.parameters(), before))
