import io
import os
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch

from authors import SMALL, build_theirs, save_checkpoint, small_state
from dvlae.config.settings import ModelSettings, PredictionSettings, TrainSettings
from dvlae.inference.estimates import denoise
from dvlae.inference.log_likelihood import bound_log_likelihood
from dvlae.models.dvlae import DVLAE, build_model
from dvlae.models.files import load_model, load_weights
from dvlae.models.imported.weights import import_weights
from dvlae.system.errors import UserError
from untrained import noisy

SCALE = {"mean": [100.0], "std": [40.0]}
# Settings with the sizes of the small state.
MODEL = ModelSettings(network="paper", levels=2, channels=4, latent_channels=2, components=1)
STATISTICS = {"mean": [7.0], "std": [8.0], "step": [1.0]}


def save(content, path):
    """Save a state, or anything else, and return the path."""
    torch.save(content, path)
    return path


def test_the_small_state_is_one_of_theirs(code):
    theirs = build_theirs(code, **SMALL).state_dict()
    assert {name: value.shape for name, value in small_state().items()} == {n: v.shape for n, v in theirs.items()}


def test_a_checkpoint_of_their_lightning_module_is_read_with_the_scale_of_its_images(code, tmp_path, caplog):
    caplog.set_level("INFO")
    theirs = build_theirs(code, "y", mean=torch.tensor(97.5), std=torch.tensor(31.0))
    save_checkpoint(theirs, tmp_path / "theirs.ckpt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(tmp_path / "theirs.ckpt", weights_only=True)  # It holds modules.
    import_weights(tmp_path / "theirs.ckpt", tmp_path / "model")
    import_weights(save(theirs.state_dict(), tmp_path / "state.pt"), tmp_path / "other", mean=[97.5], std=[31.0])
    ours, other = load_model(tmp_path / "model"), load_model(tmp_path / "other")
    assert ours.architecture == other.architecture
    assert ours.architecture.noise_direction == "y"
    assert (ours.mean.item(), ours.std.item()) == (97.5, 31.0)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), other.state_dict().values(), strict=True))
    assert "noise along y, receptive field 16, mean 97.5, standard deviation 31" in caplog.text
    assert "prior of the coarsest level is for images of 32 x 32 pixels" in caplog.text


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (None, {}, r"state.pt: found no mean and no std of the training images; give --mean and --std"),
        (None, {"mean": [1.0]}, "found no std of the training images; give --std"),
        (
            None,
            {"mean": [1.0], "std": [0.0]},
            r"std: found \[0.0\], allowed: one finite number above 0; give it with --std",
        ),
        (
            None,
            {"mean": [1.0, 2.0], "std": [1.0]},
            r"mean: found \[1.0, 2.0\], allowed: one finite number; give it with --mean",
        ),
        (float("nan"), {}, "mean: found nan, allowed: one finite number; give it with --mean"),
        (print, {}, "found no mean of the training images; give --mean"),
    ],
)
def test_a_scale_that_is_missing_or_odd_names_the_option(tmp_path, value, options, message):
    content = small_state()
    if value is not None:
        content = {"state_dict": content, "hyper_parameters": {"data_mean": value, "data_std": 40.0}}
    torch.save(content, tmp_path / "state.pt")
    with pytest.raises(UserError, match=message):
        import_weights(tmp_path / "state.pt", tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


def test_each_channel_has_its_scale_and_images_that_were_normalised_before_are_named(code, tmp_path, caplog):
    theirs = build_theirs(code, image_channels=2, mean=0, std=1)
    state = save(theirs.state_dict(), tmp_path / "state.pt")
    import_weights(state, tmp_path / "model", mean=[1.0, 2.0], std=[3.0])
    assert load_model(tmp_path / "model").mean.flatten().tolist() == [1.0, 2.0]
    assert load_model(tmp_path / "model").std.flatten().tolist() == [3.0, 3.0]
    assert "WARNING" not in caplog.text
    import_weights(state, tmp_path / "model", mean=[0.0], std=[1.0])
    assert "WARNING: mean 0 and standard deviation 1, so this model takes images that were normalised" in caplog.text


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"kernel": 3, "pairs": 2}, "found a decoder of 2 pairs of convolutions of 3 taps"),
        ({"kernel": 4}, "found a decoder of 2 pairs of convolutions of 4 taps"),
        ({"downsampling": (0, 1, 1)}, "found levels 1, 2 that halve the resolution, allowed: every one, every second"),
    ],
)
def test_sizes_that_we_do_not_have_are_named(code, tmp_path, sizes, message):
    state = save(build_theirs(code, **sizes).state_dict(), tmp_path / "state.pt")
    with pytest.raises(UserError, match=message):
        import_weights(state, tmp_path / "model", **SCALE)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vae.final_top_down.0.pre_conv.weight", torch.ones(4), "found a weight vae.final_top_down.0.pre_conv.weight"),
        ("s_decoder.net.8.bias", torch.ones(1), "found s_decoder.net.8.bias and no s_decoder.net.8.weight"),
        ("s_decoder.net.6.bias", None, "found no weight s_decoder.net.6.bias"),
        ("s_decoder.net.6.bias", torch.ones(2), r"s_decoder.net.6.bias: found the sizes \(2,\), allowed: \(1,\)"),
        ("s_decoder.net.6.bias", torch.tensor([torch.nan]), "found values that are not finite"),
        ("vae.first_bottom_up.0.weight", None, "found no vae.first_bottom_up.0.weight, allowed: a checkpoint of"),
        ("vae.first_bottom_up.0.weight", torch.ones(3), "found no stem in vae.first_bottom_up.0.weight"),
        ("vae.top_down_layers.1.top_prior_params", None, "found no prior in vae.top_down_layers.1.top_prior_params"),
        (
            "noise_model.out_convs.convs.0.weight",
            None,
            "out_convs.convs.0.bias and no noise_model.out_convs.convs.0.weight",
        ),
        ("vae.bottom_up_layers.0.net.0.pre_conv.weight", None, "and no vae.bottom_up_layers.0.net.0.pre_conv.weight"),
        (
            "noise_model.out_convs.convs.0.bias",
            None,
            "not the networks of the authors' code of 2023 .*out_convs.convs.0.bias",
        ),
        (
            "noise_model.layers.layers.0.in_conv.conv.weight",
            None,
            "and no noise_model.layers.layers.0.in_conv.conv.weight",
        ),
    ],
)
def test_a_state_of_other_networks_is_one_line(tmp_path, name, value, message):
    state = small_state() | {name: value}
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "state.pt")
    with pytest.raises(UserError, match=message) as caught:
        import_weights(tmp_path / "state.pt", tmp_path / "model", **SCALE)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "state.pt"))


def test_a_weight_that_is_missing_has_its_name_in_the_file(tmp_path):
    state = small_state()
    # Some of the others tell the sizes of the networks.
    for name in [name for name in state if not name.endswith(("weight", "params", "mask"))]:
        torch.save({other: value for other, value in state.items() if other != name}, tmp_path / "state.pt")
        with pytest.raises(UserError) as caught:
            import_weights(tmp_path / "state.pt", tmp_path / "model", **SCALE)
        assert name in str(caught.value)


def test_absurd_sizes_take_no_memory(tmp_path):
    wide = torch.zeros(10**6, 1, 5, 5)
    state = save(small_state() | {"vae.first_bottom_up.0.weight": wide}, tmp_path / "state.pt")
    with pytest.raises(UserError, match=r"found the sizes .*, allowed: \(1000000"):
        import_weights(state, tmp_path / "model", **SCALE)


def test_a_damaged_file_is_one_line(tmp_path):
    state = save(small_state(), tmp_path / "state.pt")
    content = state.read_bytes()
    others = {"empty": b"", "half": content[: len(content) // 2], "text": b"no weights", "pickle": pickle.dumps({})}
    for name, other in others.items():
        file = tmp_path / name
        file.write_bytes(other)
        with pytest.raises(UserError, match=r"not a file of torch\.save that can be read") as caught:
            import_weights(file, tmp_path / "model", **SCALE)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="missing: not found"):
        import_weights(tmp_path / "missing", tmp_path / "model", **SCALE)
    for other in (tmp_path, tmp_path / "text" / "a.pt"):
        with pytest.raises(UserError, match=r"(is|not) a directory$"):
            import_weights(other, tmp_path / "model", **SCALE)


def test_a_file_of_an_old_pytorch_is_named_as_such(tmp_path):
    torch.save(small_state(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"since 1\.6; load an older file, and save it with a newer one"):
        import_weights(tmp_path / "old.pt", tmp_path / "model", **SCALE)


@pytest.mark.parametrize(
    ("layer", "change", "words"),
    [
        ("s_decoder.net.0.weight", lambda value: value.to(torch.complex64), "complex"),
        ("s_decoder.net.0.weight", lambda value: value.to(torch.int32), r"found torch\.int32, allowed: torch\.float32"),
        (".running_var", lambda value: -1 - value, "found variances below 0"),
    ],
)
def test_weights_that_no_training_makes_are_refused(tmp_path, layer, change, words):
    state = small_state()
    name = next(name for name in state if name.endswith(layer))
    file = save(state | {name: change(state[name])}, tmp_path / "state.pt")
    with pytest.raises(UserError, match=words):
        import_weights(file, tmp_path / "model", **SCALE)


@pytest.mark.parametrize("scale", [{"mean": [1e39]}, {"std": [1e-50]}, {"std": [1e39]}, {"std": [-1.0]}])
def test_a_scale_beyond_single_precision_is_refused(tmp_path, scale):
    file = save(small_state(), tmp_path / "state.pt")
    with pytest.raises(UserError, match="allowed: one finite number"):
        import_weights(file, tmp_path / "model", **(SCALE | scale))


def test_a_pickled_module_and_other_content_are_refused(code, tmp_path):
    for content in (build_theirs(code), [1, 2], {"state_dict": 3}, OrderedDict(), torch.ones(3)):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(UserError, match=r"found no vae\.first_bottom_up\.0\.weight, allowed: a checkpoint"):
            import_weights(tmp_path / "other.pt", tmp_path / "model", **SCALE)


class Malicious:
    """What runs a command as soon as it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch '{self.target}'",)


@pytest.mark.parametrize("place", ["alone", "hyper_parameters", "state", "key", "scale"])
def test_nothing_in_a_file_runs(tmp_path, place):
    evil, state = Malicious(tmp_path / "ran"), small_state()
    content = {
        "alone": evil,
        "hyper_parameters": {"state_dict": state, "hyper_parameters": evil},
        "state": state | {"evil": evil},
        "key": {"state_dict": {(evil,): 1}},
        "scale": {"state_dict": state, "hyper_parameters": {"data_mean": evil, "data_std": 1.0}},
    }[place]
    torch.save(content, tmp_path / "evil.pt")
    try:
        import_weights(tmp_path / "evil.pt", tmp_path / "model")
    except UserError as error:
        assert "\n" not in str(error)
    else:
        pytest.fail("there is no scale in the file")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "ran").exists()  # so that it would have been noticed


@pytest.mark.parametrize(
    "call",
    [
        b"cbuiltins\neval\n(S'open(PATH, \"w\")'\ntR.",
        b"(S'touch PATH'\nios\nsystem\n.",
        b"cos\nsystem\n(S'touch PATH'\ntR.",
        b"cbuiltins\ngetattr\n(cos\nposix\nS'system'\ntR(S'touch PATH'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0atouch PATH\x85R.",
        b"ctorch.utils\n_config_module\n(ctorch\nload\nS'PATH'\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03ttR.",
        b"cos\nsystem\n)\x81}b.",
        b"ccollections\nOrderedDict\n)R(NtR.",
        b"ctorch\nFloatStorage\n)R.",
    ],
)
def test_no_opcode_of_a_pickle_runs_anything(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/data.pkl", call.replace(b"PATH", b"ran1"))
    (tmp_path / "evil.pt").write_bytes(content.getvalue())
    with pytest.raises(UserError):
        import_weights(tmp_path / "evil.pt", tmp_path / "model", **SCALE)
    assert not (tmp_path / "ran1").exists()


@pytest.mark.parametrize("how", ["compressed", "big", "outside", "repeated"])
def test_an_archive_that_is_more_than_its_file_is_refused(tmp_path, how):
    torch.save({"a": torch.arange(6.0)}, tmp_path / "state.pt")
    with zipfile.ZipFile(tmp_path / "state.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "odd.pt", "w", 8 if how == "compressed" else 0) as archive:
        for name, part in parts.items():
            if how == "big" and name.endswith("byteorder"):
                part = b"big"
            if how == "outside" and "/data/" in name:
                part = part[:-4]
            archive.writestr(name, part)
            if how == "repeated" and name.endswith("data.pkl"):
                archive.writestr("b/data.pkl", part)
    with pytest.raises(UserError, match=r"odd\.pt: not a file of torch\.save that can be read"):
        import_weights(tmp_path / "odd.pt", tmp_path / "model", **SCALE)


def test_a_training_can_start_from_them(tmp_path):
    import_weights(save(small_state(), tmp_path / "state.pt"), tmp_path / "model", **SCALE)
    theirs = load_model(tmp_path / "model")
    ours = DVLAE(replace(theirs.architecture, top_grid=None), [7.0], [8.0], [1.0])
    load_weights(ours, tmp_path / "model")
    before, after = (dict(model.named_parameters()) for model in (theirs, ours))
    prior = "ladder_vae.levels.1.top_prior"
    torch.testing.assert_close(after.pop(prior), before.pop(prior).mean((2, 3), keepdim=True))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert ours.mean.item() == 7.0
    assert build_model(TrainSettings(model=MODEL), STATISTICS, (16, 16), 8, "x").architecture == replace(
        ours.architecture, stride=(4, 4)
    )


def test_they_denoise_images_of_any_size(tmp_path):
    import_weights(save(small_state(), tmp_path / "state.pt"), tmp_path / "model", **SCALE)
    model = load_model(tmp_path / "model")
    mean, std = denoise(model, noisy(13, 21), name="a", seed=0, settings=PredictionSettings(samples=4))
    assert np.isfinite(mean).all()
    assert (std > 0).all()
    assert np.isfinite(bound_log_likelihood(model, noisy(13, 21), name="a", samples=2, seed=0).bound)
