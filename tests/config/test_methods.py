"""Method files, and the methods of a configuration."""

import json

import pytest
import yaml

from dvlae.config.dataset import DatasetSettings
from dvlae.config.grid import list_methods, resolve_methods
from dvlae.config.loading import load_configuration
from dvlae.config.messages import validate
from dvlae.config.methods import MethodSettings, fill_places, load_method
from dvlae.config.reference import schema
from dvlae.config.settings import PredictSettings, Settings, TrainSettings
from dvlae.system.errors import UserError
from dvlae.system.software import shipped_methods

COMMAND = "cp {noisy}/*.tif {denoised}"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes a method file into a new working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config/methods").mkdir(parents=True)

    def file(name="mine", **keys):
        path = tmp_path / f"config/methods/{name}.yaml"
        path.write_text(yaml.safe_dump({"description": name} | keys))
        return path

    return file


def dataset(direction="x"):
    keys = {"source": {"kind": "skimage"}, "noisy": "*.png", "axes": "YX", "noise_direction": direction}
    return validate(DatasetSettings, keys, "")


def names(settings, direction="x"):
    return [(method.name, seed) for method, seed in resolve_methods(settings, dataset(direction))]


@pytest.mark.parametrize("name", sorted(file.stem for file in shipped_methods().glob("*.yaml")))
def test_every_method_file_of_the_package_is_right(name):
    assert load_method(name)[1].description


def test_the_schema_for_editors_is_up_to_date():
    assert (shipped_methods() / "schema.json").read_text() == schema(MethodSettings)


def test_the_working_folder_comes_before_the_package(write):
    assert load_method("noisy")[2].parent == shipped_methods()
    write("noisy", command=COMMAND)
    assert load_method("noisy")[1].command == COMMAND


@pytest.mark.parametrize(("keys", "said"), [
    ({}, "found none of them, allowed: one of function, command, dvlae, unavailable"),
    ({"command": COMMAND, "unavailable": "no"}, "found command and unavailable, allowed: one of"),
    ({"function": "filters.bm3"}, r"function: found 'filters.bm3', did you mean 'filters.bm3d'\? allowed: "),
    # A module without `fit`.
    ({"function": "filters.spectrum"}, "function: found 'filters.spectrum', .*allowed: filters.bm3d"),
    ({"function": "..api.denoise"}, "function: found '..api.denoise', .*allowed: filters"),
    ({"command": "cp {noissy} {denoised}"}, r"command: found \{noissy\}, did you mean 'noisy'\? allowed: \{python\}"),
    ({"command": "cp {noisy} here"}, r"allowed: a line with \{noisy\} and \{denoised\}"),
    ({"command": COMMAND + " {clean}"}, r"sees: found 'noisy', allowed: 'clean', as the command has .*\{clean\}"),
    ({"command": COMMAND + " {code}"}, r"files: found none, allowed: a registry"),
    ({"function": "filters.noisy", "environment": "r.txt"}, "environment: found 'r.txt', allowed: with `command` only"),
    ({"command": COMMAND, "environment": "r.txt"}, "environment: found 'r.txt', but there is no file .*r.txt"),
    ({"command": COMMAND, "candidates": [{}, {}]}, "candidates: found 2, allowed: where a function or command trains"),
    ({"command": COMMAND, "trains": True, "candidates": [{}] * 5}, "candidates: found .*allowed: a list of at most 4"),
    ({"command": COMMAND, "licens": "MIT"}, "licens: unknown key; did you mean 'licence'"),
    ({"command": COMMAND, "sees": "everything"}, "sees: found 'everything', allowed: noisy, repeats, pairs, clean"),
    ({"dvlae": {"receptive_field": 5}}, "dvlae.receptive_field: receptive field 5 cannot be reached"),
])  # fmt: skip
def test_a_wrong_method_file_is_one_line(write, keys, said):
    path = write(**keys)
    with pytest.raises(UserError, match=said) as error:
        load_method("mine")
    assert str(error.value).startswith(str(path.relative_to(path.parents[2])))


@pytest.mark.parametrize(("name", "said"), [
    ("gausian", "found 'gausian', did you mean 'gaussian'"),
    ("no/such.yaml", "found 'no/such.yaml', but there is no such file"),
    ("images", "found 'images', allowed: .*none of images, patches, simulated"),
    ("dvlae-rf", "our own methods are dvlae-rfN"),
])  # fmt: skip
def test_a_method_that_does_not_exist_is_one_line(write, name, said):
    with pytest.raises(UserError, match=said):
        load_method(name)


def test_places_are_filled_and_variables_of_the_shell_left(write):
    line = fill_places("for f in {noisy}/*; do cp ${f} {denoised}; done", {"noisy": "'a b'", "denoised": "c"})
    assert line == "for f in 'a b'/*; do cp ${f} c; done"


def test_methods_are_listed_in_their_order_with_seeds_where_they_have_some(write):
    write("learns", command=COMMAND, trains=True, seeds=True)
    path = write("mine", command=COMMAND)
    settings = Settings(methods=["noisy", "learns", str(path), "dvlae-rf4"], seeds=[0, 7])
    assert names(settings) == [
        ("noisy", 0), ("learns", 0), ("learns", 7), ("mine", 0), ("dvlae-rf4", 0), ("dvlae-rf4", 7)
    ]  # fmt: skip


def test_models_that_the_list_does_not_name_are_at_its_end(write):
    assert names(Settings(methods=["sem", "noisy"], models={"sem": "a", "other": "b"})) == [
        ("sem", 0), ("noisy", 0), ("other", 0)
    ]  # fmt: skip


def test_noise_without_direction_has_receptive_field_0_only_also_in_a_list(write):
    assert names(Settings(methods=["dvlae-rf4", "noisy", "dvlae-rf8"]), "none") == [("dvlae-rf0", 0), ("noisy", 0)]


def test_two_methods_of_one_name_are_refused(write):
    settings = Settings(receptive_fields=[], models={"noisy": "a"}, baselines=["noisy"])
    with pytest.raises(UserError, match="found 'noisy' twice"):
        list_methods(settings)


def test_a_method_that_trains_needs_a_time(write):
    write("learns", command=COMMAND, trains=True)
    with pytest.raises(UserError, match=r"'learns', which trains for a time, allowed: with training\.max_minutes"):
        list_methods(Settings(methods=["learns"], training={"max_minutes": None}))


def test_our_own_network_takes_the_settings_of_its_file_over_those_of_the_configuration(write):
    model = {"channels": 99, "direct_denoiser": "mean"}
    write("wide", dvlae={"receptive_field": 4, "model": model, "prediction": {"estimator": "direct"}})
    settings = Settings(methods=["dvlae-rf4-linear", "wide"], model={"latent_channels": 5})
    linear, wide = (method.configure(settings) for method in list_methods(settings))
    assert (linear.model.autoregression, linear.model.channels, linear.model.latent_channels) == ("linear", 16, 5)
    assert (wide.model.channels, wide.model.latent_channels) == (99, 5)
    assert PredictSettings.of(wide).prediction.estimator == "direct"
    assert TrainSettings.of(wide).identity() != TrainSettings.of(settings).identity()


@pytest.mark.parametrize(("block", "said"), [
    ({"model": {"chanels": 3}}, "method wide: model.chanels: unknown key; did you mean 'channels'"),
    ({"prediction": {"estimator": "direct"}}, "prediction.estimator: found 'direct', allowed: only with"),
    ({"training": {"patch_size": 32}}, "found settings for other patches than those of the configuration"),
    ({"model": {"levels": 5}}, "found settings for other patches than those of the configuration"),
])  # fmt: skip
def test_wrong_settings_of_our_own_network_are_one_line(write, block, said):
    write("wide", dvlae={"receptive_field": 4} | block)
    with pytest.raises(UserError, match=said):
        list_methods(Settings(methods=["wide"]))


@pytest.mark.parametrize("order", [
    [{"methods": ["noisy"], "baselines": ["noisy"]}],
    [{"methods": ["noisy"]}, {"baselines": ["gaussian"]}],
])  # fmt: skip
def test_a_key_that_a_list_of_methods_would_hide_is_refused(write, tmp_path, order):
    files = [tmp_path / f"{number}.yaml" for number in range(len(order))]
    for file, keys in zip(files, order, strict=True):
        file.write_text(json.dumps(keys))
    with pytest.raises(UserError, match=r"baselines: found .*, allowed: no such key, as `methods` in .*0.yaml lists"):
        load_configuration(files)


def test_a_list_of_methods_may_override_the_keys_below_it(write, tmp_path):
    (tmp_path / "config/config.yaml").write_text("receptive_fields: [8]\nbaselines: [noisy]\n")
    (tmp_path / "mine.yaml").write_text("methods: [gaussian]\n")
    assert names(load_configuration([tmp_path / "mine.yaml"])) == [("gaussian", 0)]
