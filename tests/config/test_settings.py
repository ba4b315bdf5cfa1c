import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dvlae.config.dataset import DatasetSettings, EvaluationSettings
from dvlae.config.fields import sides
from dvlae.config.grid import Method, check_models, dvlae_method, resolve_methods
from dvlae.config.loading import load_blocks, load_configuration, load_dataset, load_datasets, load_settings, load_step
from dvlae.config.messages import locate, validate
from dvlae.config.reference import reference, schema
from dvlae.config.settings import PatchSettings, PredictSettings, Settings, TrainSettings
from dvlae.config.training import TrainingSettings
from dvlae.config.yaml_files import read_given
from dvlae.system.errors import UserError

CONFIG = Path(__file__).parents[2] / "config"
DATASET = {"source": {"kind": "files"}, "noisy": "*.tif", "axes": "YX", "noise_direction": "x"}
DOWNLOAD = DATASET | {"source": {"kind": "download", "registry": "r.csv"}}


def refusal(cls, data) -> str:
    with pytest.raises(UserError) as error:
        validate(cls, data, "file.yaml")
    return str(error.value)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"trainng": {}}, "file.yaml: trainng: unknown key; did you mean 'training'? allowed: datasets, "),
        ({"training": {"patch_sise": 32}}, "file.yaml: training.patch_sise: unknown key; did you mean 'patch_size'?"),
        ({"seeds": ["0"]}, "file.yaml: seeds[0]: found '0', allowed: a whole number >= 0"),
        ({"seeds": [True]}, "file.yaml: seeds[0]: found true, allowed: a whole number >= 0"),
        ({"seeds": [-1]}, "file.yaml: seeds[0]: found -1"),
        ({"seeds": [0, 0]}, "file.yaml: seeds: found 0 twice, allowed: each once"),
        ({"datasets": []}, "file.yaml: datasets: found [], allowed: a list of at least one: text"),
        ({"datasets": ["a", "mine/a.yaml"]}, "file.yaml: datasets: found 'a' twice"),
        ({"datasets": "simulated"}, "file.yaml: datasets: found 'simulated', allowed: a list of at least one: text"),
        ({"baselines": [3]}, "file.yaml: baselines[0]: found 3, allowed: text"),
        (
            {"receptive_fields": [41]},
            "file.yaml: receptive_fields[0]: receptive field 41 cannot be reached; the near",
        ),
        ({"prediction": {"samples": 0}}, "file.yaml: prediction.samples: found 0, allowed: a whole number >= 1"),
        (
            {"prediction": {"tile": "big"}},
            "file.yaml: prediction.tile: found 'big', allowed: auto or a whole number >= 16",
        ),
        (
            {"prediction": {"estimator": "mode"}},
            "file.yaml: prediction.estimator: found 'mode', allowed: mmse, median, direct",
        ),
        (
            {"prediction": {"samples": 2, "save_samples": 3}},
            "file.yaml: prediction: save_samples: found 3, allowed",
        ),
        ({"prediction": [1]}, "file.yaml: prediction: found [1], allowed: a block with the keys samples, "),
        ({"training": {"max_minutes": -1}}, "file.yaml: training.max_minutes: found -1, allowed: a number > 0 or null"),
        ({"training": {"max_minutes": float("nan")}}, "file.yaml: training.max_minutes: found nan"),
        ({"training": {"learning_rate": "2e-3"}}, "(YAML takes this for text; write 0.002)"),
        ({"training": {"precision": 16}}, "file.yaml: training.precision: found 16, allowed: auto, 32, bf16"),
        (
            {"training": {"workers": 5, "batch_size": 4}},
            "file.yaml: training: workers: found 5, allowed: at most batch_size, 4",
        ),
        ({"training": {"workers": 0}}, "file.yaml: training.workers: found 0, allowed: auto or a whole number >= 1"),
        ({"model": None}, "file.yaml: model: found null, allowed: a block with the keys levels, "),
        ({"devices": 2}, "file.yaml: devices: found 2, allowed: divisors of training.accumulate, which is 1"),
        (
            {"model": {"direct_denoiser": "mode"}},
            "model.direct_denoiser: found 'mode', allowed: ",
        ),
        (
            {"prediction": {"estimator": "direct"}},
            "prediction.estimator: found 'direct', allowed: only with",
        ),
        (
            {"training": {"patch_size": 4}},
            "training.patch_size: found 4, allowed: auto or a whole number >= 8 or a list of 1 to 3: a whole number",
        ),
        ({"training": {"patch_size": []}}, "file.yaml: training.patch_size: found [], allowed: auto or a whole number"),
        ({"training": {"patch_size": [8, 8, 8, 8]}}, "file.yaml: training.patch_size: found [8, 8, 8, 8], allowed:"),
        (
            {"training": {"patch_size": [4, 60]}},
            "training.patch_size: found 60, but this model's levels need a multiple of 8, such as 56 or 64",
        ),
        (
            {"training": {"patch_size": 40}, "model": {"levels": 8, "levels_per_scale": 2}},
            "training.patch_size: found 40, but this model's levels need a multiple of 16, such as 32 or 48",
        ),
        (["datasets"], "file.yaml: found ['datasets'], allowed: the keys datasets, "),
    ],
)
def test_a_wrong_configuration_is_one_line_with_file_key_found_and_allowed(data, line):
    text = refusal(Settings, data)
    assert line in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"axes": "YXY"}, "file.yaml: axes: found 'YXY', allowed: auto, or each of S, T, C, Z, Y, X at most once"),
        ({"axes": "YXQ"}, "file.yaml: axes: found 'YXQ'"),
        ({"axes": "TY"}, "file.yaml: axes: found 'TY', allowed: "),
        ({"axes": "ZX"}, "file.yaml: axes: found 'ZX', allowed: "),
        ({"axes": "ZY"}, "file.yaml: axes: found 'ZY', allowed: "),
        (
            {"noise_direction": "z"},
            "file.yaml: noise_direction: found 'z', allowed: x, y, none, as the axes 'YX' have no Z",
        ),
        (
            {"noise_direction": "y", "axes": "SX"},
            "file.yaml: noise_direction: found 'y', allowed: x, none, as the axes 'SX' have no Y",
        ),
        ({"noise_direction": None}, "file.yaml: noise_direction: found null, allowed: x, y, z, none"),
        ({"source": {"kind": "zenodo"}}, "file.yaml: source.kind: found 'zenodo', allowed: download, files, skimage"),
        ({"source": {"kind": "download"}}, "file.yaml: source: found kind 'download' with no registry"),
        ({"source": {"kind": "files", "registry": "r.csv"}}, "file.yaml: source: found kind 'files' with registry"),
        ({"crop": {"y": [5, 5]}}, "file.yaml: crop.y: found [5, 5]"),
        ({"crop": {"c": [0, 5]}}, "file.yaml: crop.c: unknown key; allowed: z, y, x"),
        ({"crop": {"z": [0, 5]}}, "file.yaml: crop.z: found [0, 5], allowed: null, as the axes 'YX' have no Z"),
        (
            {"evaluation": {"crop": {"y": [0, 5]}}, "axes": "X"},
            "file.yaml: evaluation.crop.y: found [0, 5], allowed: null, as the axes 'X' have no Y",
        ),
        ({"channel": 0}, "channel: found 0, allowed: null, as the axes 'YX' have no C"),
        ({"axes": "auto", "axes_override": True}, "axes_override: found True, allowed only with axes that are named"),
        ({"axes": "auto", "pages": {"C": 2}}, "pages: found {'C': 2}, allowed only with axes that are named"),
        ({"axes": "TYX", "pages": {"C": 2}}, "pages: found {'C': 2}, allowed: axes that `axes` names, found 'TYX'"),
        ({"size": {"images": 3, "sides": [9]}}, "size.sides: found [9], allowed: 2 numbers, as axes is 'YX'"),
        ({"size": {"images": 0, "sides": [9, 9]}}, "file.yaml: size.images: found 0, allowed: a whole number >= 1"),
        (
            {"published": [{"method": "theirs", "source": "a", "conditions": "b"}]},
            "published[0].psnr: missing; it needs",
        ),
        ({"pages": {"X": 2}}, "file.yaml: pages.X: unknown key; allowed: S, T, C, Z"),
        ({"crop": {"y": [-2, -5]}}, "crop.y: found [-2, -5], allowed: [first, after the last]"),
        ({"channel": "red"}, "file.yaml: channel: found 'red', allowed: a whole number >= 0 or grey or null"),
        ({"simulate": {}, "clean": "mean"}, "clean: found 'mean', allowed: null"),
        ({"simulate": {"kernel": [0]}}, "file.yaml: simulate.kernel: found [0.0]"),
        ({"simulate": {"kernel": [1, 1]}, "noise_direction": "none"}, "simulate.kernel: found 2 numbers"),
        ({"simulate": {"bits": 0}}, "file.yaml: simulate.bits: found 0"),
        ({"evaluation": {"register": 1}}, "file.yaml: evaluation.register: found 1, allowed: true or false"),
        ({"evaluation": {"data_range": 0}}, "file.yaml: evaluation.data_range: found 0, allowed: auto or a number > 0"),
        ({"evaluation": {"images": []}}, "file.yaml: evaluation.images: found []"),
        ({"training": {"block": 0}}, "file.yaml: training.block: found 0"),
    ],
)
def test_a_wrong_dataset_is_one_line_with_file_key_found_and_allowed(change, line):
    text = refusal(DatasetSettings, DATASET | change)
    assert line in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("axes", "dimensions"), [("X", 1), ("XC", 1), ("TSX", 1), ("YX", 2), ("TCYX", 2), ("ZYX", 3), ("CZTYX", 3)]
)
def test_the_axes_say_how_many_dimensions_there_are(axes, dimensions):
    assert validate(DatasetSettings, DATASET | {"axes": axes}, "").dimensions == dimensions


def test_axes_that_only_the_files_say_are_not_judged_without_them():
    settings = {key: value for key, value in DATASET.items() if key != "axes"} | {"noise_direction": "z", "channel": 1}
    assert validate(DatasetSettings, settings, "").dimensions is None


def test_the_noise_of_a_volume_may_be_along_z():
    settings = validate(DatasetSettings, DATASET | {"axes": "ZYX", "noise_direction": "z", "crop": {"z": [2, 8]}}, "")
    assert (settings.noise_direction, settings.crop.z) == ("z", [2, 8])


def test_the_sides_of_a_crop_are_one_number_or_one_for_each_axis():
    assert sides(64, 3) == (64, 64, 64)
    assert sides(Settings(training={"patch_size": [4, 32, 64]}).training.patch_size, 3) == (4, 32, 64)
    with pytest.raises(UserError, match=r"patch_size: found \[4, 32, 64\], allowed: a number, or 2 sides \[y, x\]"):
        sides([4, 32, 64], 2)


def test_each_problem_has_a_line_of_its_own():
    lines = refusal(DatasetSettings, {"source": {"kind": "files"}, "axes": 3}).splitlines()
    assert lines == [
        "file.yaml: noisy: missing; it needs text or a list of at least one: text",
        "file.yaml: axes: found 3, allowed: text",
        "file.yaml: noise_direction: missing; it needs x, y, z, none",
    ]


@pytest.mark.parametrize("file", sorted(CONFIG.glob("*.yaml")), ids=lambda file: file.name)
def test_shipped_configurations_are_valid_and_name_their_own_results(file):
    settings = load_settings(Settings, file)
    others = {load_settings(Settings, other).results for other in CONFIG.glob("*.yaml") if other != file}
    assert settings.results not in others
    assert load_datasets(settings.datasets, CONFIG / "datasets")


@pytest.mark.parametrize("file", sorted((CONFIG / "datasets").glob("*.yaml")), ids=lambda file: file.name)
def test_shipped_datasets_are_valid(file):
    for name, dataset in load_datasets([str(file)]).items():
        assert name.startswith(file.stem)
        assert dataset.source.registry is None or Path(dataset.source.registry).is_file()


def test_the_default_configuration_states_the_defaults():
    assert load_settings(Settings, CONFIG / "config.yaml") == Settings()


def test_settings_survive_the_way_through_json():
    settings = validate(Settings, {"training": {"precision": 32, "max_minutes": 3}}, "file.yaml")
    assert settings.training.precision == "32"
    assert load_settings(Settings, settings.model_dump_json()) == settings


def test_without_a_file_there_are_the_defaults():
    assert load_settings(TrainSettings, None) == TrainSettings()
    assert EvaluationSettings().register is False


def test_each_name_has_a_block_or_the_defaults(tmp_path):
    (tmp_path / "d.yaml").write_text("a: {border: 3}")
    blocks = load_blocks(EvaluationSettings, tmp_path / "d.yaml", ["a", "b"])
    assert {name: block.border for name, block in blocks.items()} == {"a": 3, "b": 0}


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [1\n", "not YAML in line 2"), ("seeds: [0]\nseeds: [1]\n", "the key 'seeds' stands twice"), ("", None)],
)
def test_a_file_that_is_no_yaml_is_named_with_the_line(tmp_path, text, said):
    (tmp_path / "c.yaml").write_text(text)
    if said is None:
        assert load_settings(Settings, tmp_path / "c.yaml") == Settings()
        return
    with pytest.raises(UserError, match=r"c.yaml") as error:
        load_settings(Settings, tmp_path / "c.yaml")
    assert said in str(error.value)


def test_a_missing_file_and_broken_json_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_settings(Settings, tmp_path / "none.yaml")
    with pytest.raises(UserError, match="not JSON"):
        load_settings(PatchSettings, "{patch_size")


WHOLE = {"training": {"max_steps": 20, "patch_size": 32}, "model": {"channels": 16}, "prediction": {"samples": 2}}


def test_each_step_takes_its_own_blocks_out_of_a_complete_configuration(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(WHOLE | {"datasets": ["mine"], "results": "r"}))
    whole = load_settings(Settings, file)
    assert load_step(TrainSettings, file) == TrainSettings.of(whole)
    assert load_step(PredictSettings, file) == PredictSettings.of(whole)
    assert load_step(PatchSettings, file) == PatchSettings(patch_size=32)
    assert load_step(PatchSettings, '{"patch_size": 32}') == PatchSettings(patch_size=32)
    assert load_step(EvaluationSettings, file) == EvaluationSettings()
    assert load_step(EvaluationSettings, json.dumps(DATASET | {"evaluation": {"border": 3}})).border == 3
    assert load_step(EvaluationSettings, '{"border": 3}').border == 3


@pytest.mark.parametrize(("cls", "data", "line"), [
    (PredictSettings, {"trainig": {}}, "settings: trainig: unknown key; did you mean 'training'? allowed: prediction"),
    (TrainSettings, {"predicton": {}}, "settings: predicton: unknown key; did you mean 'prediction'?"),
    (PredictSettings, WHOLE | {"prediction": {"samles": 2}}, "prediction.samles: unknown key; did you mean 'samples'?"),
    (TrainSettings, WHOLE | {"model": {"channels": 0}}, "settings: model.channels: found 0"),
    (PatchSettings, WHOLE | {"patch_size": 32}, "settings: patch_size: unknown key"),
    (PatchSettings, {"patchsize": 32}, "settings: patchsize: unknown key; did you mean 'patch_size'? allowed: patch_"),
    (EvaluationSettings, {"evaluation": {"borders": 1}}, "evaluation.borders: unknown key; did you mean 'border'?"),
    (EvaluationSettings, {"evaluaton": {}}, "settings: evaluaton: unknown key"),
    (TrainSettings, {"noisy": "*.tif"}, "settings: noisy: unknown key"),
])  # fmt: skip
def test_unknown_keys_are_refused_in_a_complete_configuration_too(cls, data, line):
    with pytest.raises(UserError) as error:
        load_step(cls, json.dumps(data))
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("text", ["model:\r\n  channels: 16\r\n", '{"model":\r\n {"channels": 16}}\r\n'])
def test_files_of_windows_are_read(tmp_path, mark, text):
    (tmp_path / "c.yaml").write_text(mark + text, encoding="utf-8", newline="")
    assert load_step(TrainSettings, tmp_path / "c.yaml").model.channels == 16
    assert load_configuration([tmp_path / "c.yaml"]).model.channels == 16


def test_the_home_folder_may_stand_in_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.yaml").write_text("{results: ~/r, data: ~/d, data_mirror: ~, datasets: [~/mine.yaml]}")
    settings = load_configuration(["~/c.yaml"])
    assert (settings.results, settings.data, settings.data_mirror) == (f"{tmp_path}/r", f"{tmp_path}/d", None)
    dataset = DOWNLOAD | {"source": {"kind": "download", "registry": "~/r.csv"}, "training": {"images": "~/n.txt"}}
    (tmp_path / "mine.yaml").write_text(json.dumps(dataset))
    name, found = load_dataset(settings.datasets[0])
    assert (name, found.source.registry, found.training.images) == ("mine", f"{tmp_path}/r.csv", f"{tmp_path}/n.txt")
    assert validate(Settings, {"results": "~nobody-at-all/r"}, "here").results == "~nobody-at-all/r"
    assert validate(Settings, {"data_mirror": "~/m"}, "here").data_mirror == f"{tmp_path}/m"


def test_paths_in_a_dataset_file_are_relative_to_it(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(DOWNLOAD | {"training": {"images": "train.txt"}}))
    name, dataset = load_dataset(str(tmp_path / "mine.yaml"))
    assert name == "mine"
    assert dataset.source.registry == str(tmp_path / "r.csv")
    assert dataset.training.images == str(tmp_path / "train.txt")
    assert dataset.evaluation.images == "all"
    assert load_settings(DatasetSettings, dataset.model_dump_json()) == dataset  # once only


def test_the_clean_images_of_simulated_noise_hold_none(tmp_path):
    plain, simulated = DATASET | {"evaluation": {"border": 3}}, DATASET | {"simulate": {}, "evaluation": {"border": 3}}
    for settings, noise_free in ((plain, False), (simulated, True), (DATASET | {"simulate": {}}, True)):
        _, dataset = load_dataset(write(tmp_path, "some", settings))
        assert dataset.evaluation.noise_free == noise_free
        assert load_step(EvaluationSettings, json.dumps(settings)) == dataset.evaluation
    assert load_step(EvaluationSettings, json.dumps(SWEPT)).noise_free


SWEPT = {
    "source": {"kind": "skimage"},
    "noisy": "coins.png",
    "noise_direction": "y",
    "simulate": {"read_noise": 0.0},
    "sweep": {"correlation_length": [0, 2], "photons": [5]},
}


def write(folder: Path, name: str, settings: dict) -> str:
    """Write a dataset's file and return its path."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_a_sweep_is_the_datasets_that_its_noise_could_be_written_as(tmp_path):
    paths = [write(tmp_path, "some", SWEPT)]
    alone = {name: value for name, value in SWEPT.items() if name != "sweep"}
    kinds = {"none": [1.0], "y": [1.0, 1.0, 1.0]}
    for (direction, kernel), name in zip(kinds.items(), ("length0", "length2"), strict=True):
        simulate = {"read_noise": 0.0, "photons": 5, "kernel": kernel}
        settings = alone | {"noise_direction": direction, "simulate": simulate}
        paths.append(write(tmp_path, f"{name}_photons5", settings))
    swept, written = load_datasets(paths[:1]), load_datasets(paths[1:])
    assert list(swept) == [f"some_{name}" for name in written]
    assert [one.model_dump_json() for one in swept.values()] == [one.model_dump_json() for one in written.values()]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"simulate": None}, "sweep: found a block, allowed only with `simulate` and a noise_direction"),
        ({"noise_direction": "none"}, "sweep: found a block, allowed only with `simulate` and a noise_direction"),
        ({"simulate": {"photons": 9}}, "simulate.photons: found a value, allowed: none, as `sweep` sets it"),
        ({"simulate": {"kernel": [1.0]}}, "simulate.kernel: found a value, allowed: none, as `sweep` sets it"),
        ({"sweep": {"correlation_length": [4, 4], "photons": [9]}}, "found [4, 4], allowed: each number once"),
        ({"sweep": {"correlation_length": [-1], "photons": [9]}}, "sweep.correlation_length"),
        ({"sweep": {"correlation_length": [1], "photons": []}}, "sweep.photons"),
    ],
)
def test_a_sweep_that_contradicts_itself_is_refused(tmp_path, change, words):
    with pytest.raises(UserError) as caught:
        load_datasets([write(tmp_path, "some", SWEPT | change)])
    assert words in str(caught.value) and "some.yaml" in str(caught.value)


def test_a_command_for_one_dataset_refuses_a_sweep_of_several(tmp_path):
    path = write(tmp_path, "some", SWEPT)
    with pytest.raises(UserError, match="found a sweep of 2 datasets, allowed: one; the workflow runs them all"):
        load_dataset(path)


def test_two_datasets_of_one_name_are_refused(tmp_path):
    paths = [write(tmp_path, "some", SWEPT), write(tmp_path, "some_length2_photons5", DOWNLOAD)]
    with pytest.raises(UserError, match="found 'some_length2_photons5' twice, allowed: each once"):
        load_datasets(paths)


@pytest.mark.parametrize("name", ["tables", "figures", "logs", "benchmarks"])
def test_a_dataset_cannot_have_the_name_of_another_folder_of_the_results(name):
    with pytest.raises(UserError, match=f"found '{name}', which is a folder of the results"):
        load_dataset(name)


def test_a_dataset_that_does_not_exist_is_met_with_those_that_do(tmp_path):
    (tmp_path / "here.yaml").touch()
    with pytest.raises(UserError, match=r"there is no file .*there.yaml; in .*: here"):
        load_dataset("there", tmp_path)
    with pytest.raises(UserError, match="allowed: names of letters"):
        load_dataset("../a b", tmp_path)


def test_a_problem_is_put_down_to_the_file_that_holds_the_key(tmp_path):
    base, overlay = tmp_path / "base.yaml", tmp_path / "overlay.yaml"
    base.write_text("seeds: ['0']\ntraining: {max_steps: 0}\n")
    overlay.write_text("training: {patch_size: 1}\n")
    files = [str(base), str(overlay)]
    assert locate(("seeds",), files) == str(base)
    assert locate(("training", "patch_size"), files) == str(overlay)
    with pytest.raises(UserError) as error:
        validate(Settings, {"seeds": ["0"], "training": {"max_steps": 0, "patch_size": 1}}, files)
    lines = str(error.value).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [str(base), "seeds[0]"],
        [str(overlay), "training.patch_size"],
        [str(base), "training.max_steps"],
    ]


def test_the_grid_is_receptive_fields_times_seeds_and_the_baselines_once():
    settings = Settings(receptive_fields=[4, 40], seeds=[0, 3])
    methods = resolve_methods(settings, validate(DatasetSettings, DATASET, ""))
    assert methods == [
        (dvlae_method(4, "nonlinear"), 0),
        (dvlae_method(4, "nonlinear"), 3),
        (dvlae_method(40, "nonlinear"), 0),
        (dvlae_method(40, "nonlinear"), 3),
        (Method("noisy"), 0),
        (Method("gaussian"), 0),
    ]


def test_noise_without_direction_has_receptive_field_0_only():
    dataset = validate(DatasetSettings, DATASET | {"noise_direction": "none"}, "")
    methods = resolve_methods(Settings(baselines=["noisy"]), dataset)
    assert [(method.name, method.receptive_field) for method, _ in methods] == [("dvlae-rf0", 0), ("noisy", None)]


def test_the_receptive_field_that_a_diagnosis_suggests_is_0_where_noise_has_no_direction():
    settings = Settings(methods=["dvlae-auto"], seeds=[0, 1])
    for direction, field in (("x", "auto"), ("none", 0)):
        methods = resolve_methods(settings, validate(DatasetSettings, DATASET | {"noise_direction": direction}, ""))
        found = [(method.name, method.receptive_field, seed) for method, seed in methods]
        assert found == [("dvlae-auto", field, 0), ("dvlae-auto", field, 1)]


def test_the_linear_decoder_does_not_share_its_name_with_the_nonlinear_one():
    settings = Settings(model={"autoregression": "linear"}, baselines=["noisy"])
    methods = resolve_methods(settings, validate(DatasetSettings, DATASET, ""))
    assert methods[0] == (dvlae_method(40, "linear"), 0)


def test_a_model_that_exists_is_a_method_without_training():
    settings = Settings(receptive_fields=[], seeds=[0, 3], models={"sem": "models/sem"}, baselines=["noisy"])
    for direction in ("x", "none"):
        methods = resolve_methods(settings, validate(DatasetSettings, DATASET | {"noise_direction": direction}, ""))
        assert methods == [(Method("sem", model="models/sem"), 0), (Method("noisy"), 0)]
        assert [(method.trained, method.has_model) for method, _ in methods] == [(False, True), (False, False)]


@pytest.mark.parametrize(("changes", "said"), [
    ({"models": {"a b": "m"}}, r"models.a b: found 'a b', allowed: a name of letters"),
    ({"models": {"images": "m"}}, r"models.images: found 'images', allowed: .* none of images, patches"),
    ({"models": {"dvlae-rf4": "m"}}, r"does not begin with dvlae-rf"),
    ({"models": {"m": 3}}, r"models.m: found 3, allowed: text"),
    ({"models": ["m"]}, r"models: found \['m'\], allowed: names, each with text"),
    ({"receptive_fields": []}, r"receptive_fields: found \[\], allowed: at least one, or `models`"),
])  # fmt: skip
def test_what_is_no_model_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        validate(Settings, changes, "test")


def test_models_have_to_exist_and_to_fit_the_datasets(tmp_path):
    datasets = {"small": validate(DatasetSettings, DATASET | {"noise_direction": "x"}, "")}
    settings = Settings(models={"sem": str(tmp_path)})
    with pytest.raises(UserError, match=r"models: sem: found '.*', allowed: a folder made by dvlae train"):
        check_models(settings, datasets)
    (tmp_path / "model.json").write_text('{"architecture": {"noise_direction": "y"}}')
    with pytest.raises(UserError, match=r"direction y, but the dataset small has noise_direction x"):
        check_models(settings, datasets)
    with pytest.raises(UserError, match=r"start_from: found .* direction y"):
        check_models(Settings(start_from=str(tmp_path)), datasets)
    (tmp_path / "model.json").write_text('{"architecture": {"noise_direction": "x"}}')
    check_models(settings, datasets)


def test_baselines_are_not_trained():
    methods = resolve_methods(Settings(), validate(DatasetSettings, DATASET, ""))
    assert [method.name for method, _ in methods if method.trained] == ["dvlae-rf40"]


def test_a_step_depends_on_what_it_computes_and_not_on_where():
    settings = Settings(device="cpu", model={"levels": 2}, prediction={"samples": 4, "tile": 64})
    assert TrainSettings.of(settings).device == "cpu"
    whole = settings.model_dump(mode="json", include={"model", "training"})
    for name in ("workers", "max_patch_pixels", "rescale"):
        del whole["training"][name]
    assert TrainSettings.of(settings).record() == whole
    # Texts of before there were the keys that are left out: they must not change.
    assert TrainSettings.of(settings).identity_json() == (
        '{"model":{"levels":2,"channels":16,"latent_channels":8,"components":3,"levels_per_scale":1,"blocks":1,'
        '"autoregression":"nonlinear","direct_denoiser":false},"training":{"patch_size":"auto","batch_size":8,'
        '"accumulate":1,"max_steps":null,"max_epochs":1000,"max_minutes":8.0,"patience":null,"validation_fraction":0.1,'
        '"precision":"auto","activation_checkpointing":false,"compile":false,"optimizer":"muon","learning_rate":0.01,'
        '"free_bits":0.0}}'
    )
    assert PredictSettings.of(settings).identity_json() == (
        '{"prediction":{"samples":4,"estimator":"mmse","flips":true,"shifts":4,"hot_pixels":"fill","rescale":false,'
        '"save_samples":0,"output":{"dtype":"float32","compression":"none"}}}'
    )


DEFAULTS = TrainingSettings().model_dump(mode="json")
CHANGED = {
    "patience_on": "mse", "flips": False, "min_epoch_steps": 1, "max_validation_patches": None, "betas": [0.9, 0.99],
    "momentum": 0.0, "schedule": "plateau", "plateau_patience": 5, "plateau_factor": 0.5, "warm_up_steps": 0,
    "kl_warm_up_steps": 0, "warm_up_fraction": 0.2, "average_decay": 0.0, "gradient_clip_norm": None,
    "max_rollbacks": 0, "direct_fraction": 0.5, "refine_fraction": 0.4,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TrainingSettings.LATER))
def test_a_later_key_counts_where_it_is_not_at_its_default(name):
    usual, default = TrainSettings(), TrainSettings.model_validate({"training": {name: DEFAULTS[name]}})
    other = TrainSettings.model_validate({"training": {name: CHANGED[name]}})
    assert default.identity() == usual.identity() and name not in usual.identity()["training"]
    assert other.identity()["training"] == usual.identity()["training"] | {name: CHANGED[name]}
    assert json.loads(other.identity_json()) == other.identity()
    assert other.record() == TrainSettings.complete(other.identity())


def test_an_older_record_is_completed_with_what_its_version_did():
    recorded = {"training": {"max_minutes": 3.0, "betas": [0.5, 0.5]}, "device": "cpu", "unknown": 1}
    completed = TrainSettings.complete(recorded)
    assert completed.keys() == recorded.keys()
    assert completed["training"] == {name: DEFAULTS[name] for name in TrainingSettings.LATER} | recorded["training"]
    assert TrainSettings.complete({}) == {}


def test_a_training_that_ends_before_its_rate_falls_is_refused():
    words = r"patience: found 50, allowed: more than plateau_patience, 50, or null"
    with pytest.raises(UserError, match=words):
        validate(Settings, {"training": {"schedule": "plateau", "patience": 50}}, "a.yaml")
    validate(Settings, {"training": {"schedule": "plateau", "patience": 51}}, "a.yaml")
    validate(Settings, {"training": {"patience": 50}}, "a.yaml")


def test_a_training_does_not_depend_on_the_number_of_its_workers():
    texts = {TrainSettings.of(Settings(training={"workers": each})).identity_json() for each in ("auto", 1, 4)}
    assert len(texts) == 1


def test_patches_depend_on_the_sizes_of_training_and_on_the_images_of_the_dataset():
    dataset = validate(DatasetSettings, DATASET | {"training": {"images": "0:8", "block": 2}}, "")
    patches = PatchSettings.of(Settings(training={"patch_size": 32}), dataset)
    assert patches.identity() == {
        "patch_size": 32, "stride": 8, "validation_fraction": 0.1, "images": "0:8", "block": 2,
        "max_patch_pixels": 2**27, "rescale": False,
    }  # fmt: skip


def test_the_configuration_is_light_to_import():
    code = "import sys, dvlae.config; print([m for m in ('torch', 'numpy', 'pandas', 'skimage') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_reference_page_is_up_to_date():
    assert (CONFIG / "README.md").read_text() == reference(), "python -m dvlae.config > config/README.md"


@pytest.mark.parametrize(
    "cls, path, word",
    [(Settings, "schema.json", "schema"), (DatasetSettings, "datasets/schema.json", "dataset-schema")],
)
def test_the_schema_for_editors_is_up_to_date(cls, path, word):
    assert (CONFIG / path).read_text() == schema(cls), f"python -m dvlae.config {word} > config/{path}"


def test_a_direct_denoiser_that_is_true_is_refined():
    assert validate(Settings, {"model": {"direct_denoiser": True}}, "").model.direct_denoiser == "refined"


@pytest.mark.parametrize(("denoiser", "estimator"), [("mean", "refined"), (False, "refined"), (False, "direct")])
def test_an_estimator_needs_its_denoiser(denoiser, estimator):
    message = refusal(Settings, {"model": {"direct_denoiser": denoiser}, "prediction": {"estimator": estimator}})
    assert f"prediction.estimator: found '{estimator}', allowed: only with model" in message


def test_a_configuration_is_laid_over_the_default_block_by_block_and_lists_as_a_whole(tmp_path):
    (tmp_path / "config.yaml").write_text("seeds: [0, 1]\ntraining: {max_minutes: 3, batch_size: 2}\n")
    (tmp_path / "mine.yaml").write_text("seeds: [5]\ntraining: {batch_size: 7}\n")
    settings = load_configuration([tmp_path / "mine.yaml"], tmp_path / "config.yaml")
    assert settings.seeds == [5]
    assert (settings.training.max_minutes, settings.training.batch_size) == (3.0, 7)


def test_a_mistake_in_a_configuration_is_put_down_to_its_own_file(tmp_path):
    (tmp_path / "config.yaml").write_text("seeds: [0]\n")
    (tmp_path / "mine.yaml").write_text("seeds: 5\n")
    with pytest.raises(UserError, match=r"mine\.yaml: seeds: found 5"):
        load_configuration([tmp_path / "mine.yaml"], tmp_path / "config.yaml")


def test_without_the_default_configuration_the_given_one_is_enough(tmp_path):
    (tmp_path / "mine.yaml").write_text("seeds: [5]\n")
    assert load_configuration([tmp_path / "mine.yaml"], tmp_path / "none.yaml").seeds == [5]
    with pytest.raises(UserError, match=r"none\.yaml: not found in this folder; go to the one"):
        load_configuration([], tmp_path / "none.yaml")


def test_what_is_given_to_snakemake_overrides_all_files(tmp_path):
    (tmp_path / "mine.yaml").write_text("seeds: [5]\ntraining: {batch_size: 7}\n")
    given = read_given(["seeds=[0, 1]", "training={max_minutes: 2.5}", "results=2026-11-29", "start_from="])
    settings = load_configuration([tmp_path / "mine.yaml"], tmp_path / "none.yaml", given)
    assert (settings.seeds, settings.results) == ([0, 1], "2026-11-29")
    assert (settings.training.max_minutes, settings.training.batch_size) == (2.5, 7)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["seeds"], "--config: found 'seeds', allowed: KEY=VALUE, such as 'seeds="),
        (["seeds="], "--config: seeds: found null, allowed: a list"),
        (["=3"], "--config: found '=3', allowed: KEY=VALUE"),
        (["seeds=[0"], r"--config: seeds: found '\[0', allowed: YAML in quotes"),
        (["seeds=3"], "--config: seeds: found 3, allowed: a list"),
        (["sedes=[3]"], "--config: sedes: unknown key; did you mean 'seeds'"),
        (["baselines=[median]"], "--config: baselines: found .*, allowed: no such key, as `methods` in .*mine.yaml"),
    ],
)
def test_a_mistake_in_what_is_given_to_snakemake_is_put_down_to_it(tmp_path, words, told):
    (tmp_path / "mine.yaml").write_text("methods: [gaussian]\n")
    with pytest.raises(UserError, match=told):
        load_configuration([tmp_path / "mine.yaml"], tmp_path / "none.yaml", read_given(words))


@pytest.mark.parametrize("folder", ["-results", "a{dataset}", "two\nlines"])
def test_a_folder_that_options_or_wildcards_would_be_read_from_is_refused(folder):
    with pytest.raises(UserError, match=r"results: found .* allowed: no dash in front"):
        validate(Settings, {"results": folder}, "config.yaml")
