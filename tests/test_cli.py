import csv
import errno
import hashlib
import inspect
import io
import json
import os
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml

from authors import small_state
from dvlae import cli
from dvlae.config.fields import MIRROR_VARIABLE
from dvlae.system.errors import UserError

COMMANDS = [command.name for command in cli.COMMANDS]
HEAVY = ["torch", "lightning", "skimage", "scipy", "matplotlib", "pandas", "snakemake"]
TABLES = ["tables", "psnr.csv", "--output", "tables"]


@pytest.fixture
def step(monkeypatch):
    """Return a function that replaces a step by one that only takes what the step takes, and returns what it got."""

    def replace(module: str, function: str, error: BaseException | None = None) -> dict:
        call = {}
        real = inspect.signature(getattr(import_module(module), function))

        def record(*arguments, **named):
            bound = real.bind(*arguments, **named).arguments
            # What a step hands on to another function.
            call.update(bound, **bound.get("given", {}))
            if error is not None:
                raise error

        monkeypatch.setattr(f"{module}.{function}", record)
        return call

    return replace


def test_the_command_line_and_the_settings_load_no_heavy_library():
    code = f"import sys, dvlae.cli, dvlae.config; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("words", "seconds"), [(["-c", "import dvlae"], 0.3), (["-m", "dvlae", "--help"], 0.5)])
def test_the_import_and_the_help_are_quick(words, seconds):
    used = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        used.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(used) < seconds, "processor time, whatever else the machine computes"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert command in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["denoise"], ["predict", "--seed", "one"], ["train", "a", "b"]])
def test_wrong_arguments_end_with_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2


def test_a_users_mistake_is_one_line(capsys):
    assert cli.main(["extract-patches", "images", "patches", "--settings", '{"patch_sise": 32}']) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dvlae extract-patches: error: ")
    assert "patch_sise" in line and "patch_size" in line


@pytest.mark.parametrize(
    "error, words",
    [
        (UserError("key: found 1, allowed: 2"), "key: found 1, allowed: 2"),
        (PermissionError(errno.EACCES, "Permission denied", "results/x"), "results/x: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EROFS, "Read-only file system", "results/x"), "results/x: Read-only file system"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "file/x"), "file/x: Not a directory"),
    ],
)
def test_a_disk_that_cannot_be_written_is_one_line(step, capsys, error, words):
    step("dvlae.reporting.tables", "make_tables", error)
    assert cli.main(TABLES) == 1
    assert capsys.readouterr().err == f"dvlae tables: error: {words}\n"


def test_ctrl_c_ends_with_130(step, capsys):
    step("dvlae.reporting.tables", "make_tables", KeyboardInterrupt())
    assert cli.main(TABLES) == 130
    assert capsys.readouterr().err == "dvlae tables: interrupted\n"


def test_a_bug_keeps_its_traceback(step):
    step("dvlae.reporting.tables", "make_tables", ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(TABLES)


def test_a_terminated_command_removes_what_is_half_written(tmp_path):
    code = f"""
import os, signal, time
import dvlae.reporting.tables
from dvlae import cli
from dvlae.system.files import atomic_folder
def run(**values):
    with atomic_folder({str(tmp_path / "out")!r}, {{}}) as folder:
        (folder / "half").touch()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
dvlae.reporting.tables.make_tables = run
raise SystemExit(cli.main({TABLES}))
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == 143
    assert list(tmp_path.iterdir()) == []


def test_train_hands_on_what_it_was_given(step):
    call = step("dvlae.training.train", "train")
    settings = json.dumps({"model": {"levels": 2}, "training": {"max_steps": 5}})
    words = "train patches model --receptive-field 40 --noise-direction y --seed 3 --checkpoints c --device cpu"
    assert cli.main([*words.split(), "--settings", settings]) == 0
    assert (call["patches"], call["model"]) == (Path("patches"), Path("model"))
    assert (call["receptive_field"], call["noise_direction"], call["seed"]) == (40, "y", 3)
    assert call["checkpoints"] == Path("c")
    assert (call["settings"].model.levels, call["settings"].training.max_steps) == (2, 5)
    assert call["settings"].device == "cpu"
    assert call["tensorboard"] is None
    assert cli.main([*words.split(), "--tensorboard"]) == 0
    assert call["tensorboard"] == Path("tensorboard")


def test_train_takes_its_workers_and_cores_from_the_command_line(step):
    call = step("dvlae.training.train", "train")
    words = "train patches model --receptive-field 40 --noise-direction y"
    assert cli.main([*words.split(), "--workers", "3", "--cores", "2"]) == 0
    assert (call["settings"].training.workers, call["cores"]) == (3, 2)
    assert cli.main(words.split()) == 0
    assert (call["settings"].training.workers, call["cores"]) == ("auto", None)


def test_more_workers_than_crops_are_one_line(capsys):
    words = "train patches model --receptive-field 40 --noise-direction y"
    assert cli.main([*words.split(), "--workers", "5", "--settings", '{"training": {"batch_size": 4}}']) == 1
    assert capsys.readouterr().err == (
        "dvlae train: error: command line: training: workers: found 5, allowed: at most batch_size, 4\n"
    )


@pytest.mark.parametrize(
    ("words", "key", "least"),
    [
        ("train patches model --receptive-field 40 --noise-direction y --workers", "training.workers", 1),
        ("predict model images --denoised d --uncertainty u --tile", "prediction.tile", 16),
    ],
)
@pytest.mark.parametrize(("text", "found"), [("many", "'many'"), ("1.5", "'1.5'"), ("-1", "-1")])
def test_a_word_instead_of_a_number_is_one_line(words, key, least, text, found, capsys):
    assert cli.main([*words.split(), text]) == 1
    assert capsys.readouterr().err == (
        f"dvlae {words.split()[0]}: error: command line: {key}: found {found}, "
        f"allowed: auto or a whole number >= {least}\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        "train patches model --receptive-field 40 --noise-direction y",
        "predict model images --denoised d --uncertainty u",
        "register images targets.csv",
        "diagnose images --output noise.json",
        "run-method gaussian images --denoised d",
        "evaluate images denoised psnr.csv --dataset sem --method gaussian",
    ],
)
def test_no_cores_at_all_are_one_line(words, capsys):
    assert cli.main([*words.split(), "--cores", "0"]) == 1
    assert capsys.readouterr().err == f"dvlae {words.split()[0]}: error: --cores: found 0, allowed: 1 or more\n"


@pytest.mark.parametrize(
    ("module", "function", "words"),
    [
        ("dvlae.inference.prediction", "predict", "predict model images --denoised d --uncertainty u"),
        ("dvlae.evaluation.register", "register", "register images targets.csv"),
        ("dvlae.reporting.diagnosis", "diagnose", "diagnose images --output noise.json"),
        ("dvlae.methods.run", "run_method", "run-method gaussian images --denoised d"),
        ("dvlae.evaluation.evaluate", "evaluate", "evaluate images denoised psnr.csv --dataset sem --method gaussian"),
    ],
)
def test_each_step_hears_of_the_cores_that_it_may_use(step, module, function, words):
    call = step(module, function)
    assert cli.main([*words.split(), "--cores", "3"]) == 0
    assert call["cores"] == 3


def test_predict_takes_tile_batch_and_device_from_the_command_line(step):
    call = step("dvlae.inference.prediction", "predict")
    words = "predict model images --denoised d --uncertainty u --samples s --tile 128 --batch-size 2 --device cpu"
    assert cli.main([*words.split(), "--settings", '{"prediction": {"samples": 4}}']) == 0
    assert (call["model"], call["images"]) == (Path("model"), Path("images"))
    assert (call["denoised"], call["uncertainty"], call["samples"]) == (Path("d"), Path("u"), Path("s"))
    prediction = call["settings"].prediction
    assert (prediction.samples, prediction.tile, prediction.batch_size) == (4, 128, 2)
    assert call["settings"].device == "cpu"


@pytest.mark.parametrize(
    ("words", "selection"),
    [("", "all"), ("--select 0:8", "0:8"), ("--select a", ["a"]), ("--select a b", ["a", "b"])],
)
def test_likelihood_takes_the_images_it_is_told(step, words, selection):
    call = step("dvlae.inference.log_likelihood", "likelihood")
    assert cli.main(["likelihood", "model", "images", "--output", "a.csv", "--samples", "3", *words.split()]) == 0
    assert (call["model"], call["images"], call["output"]) == (Path("model"), Path("images"), Path("a.csv"))
    assert (call["selection"], call["samples"], call["seed"], call["device"]) == (selection, 3, 0, "auto")


def test_likelihood_takes_a_file_of_names(step, tmp_path):
    call = step("dvlae.inference.log_likelihood", "likelihood")
    file = tmp_path / "names.txt"
    file.write_text("a\n")
    assert cli.main(["likelihood", "model", "images", "--output", "a.csv", "--select", str(file)]) == 0
    assert call["selection"] == str(file)


def test_levels_takes_a_part_of_an_image(step):
    call = step("dvlae.reporting.levels", "make_levels_figure")
    words = "levels model images --image a --output a.png --crop 10:20 0:30 --seed 2"
    assert cli.main(words.split()) == 0
    assert (call["model"], call["images"], call["output"]) == (Path("model"), Path("images"), Path("a.png"))
    assert (call["image"], call["crop"], call["seed"]) == ("a", [(10, 20), (0, 30)], 2)


def test_a_tile_that_is_too_small_is_the_users_mistake(capsys):
    words = "predict model images --denoised d --uncertainty u --samples s --tile 1"
    assert cli.main(words.split()) == 1
    assert "tile: found 1" in capsys.readouterr().err


def test_generate_hands_on_what_new_noise_needs(step):
    call = step("dvlae.reporting.generation", "generate_noise")
    words = "generate model new --kind noise --images images --realisations 3 --seed 4 --device cpu"
    assert cli.main([*words.split(), "--settings", '{"border": 8}']) == 0
    assert (call["model"], call["images"], call["output"]) == (Path("model"), Path("images"), Path("new"))
    assert (call["realisations"], call["seed"], call["device"], call["settings"].border) == (3, 4, "cpu", 8)


def test_generate_hands_on_what_the_prior_needs(step):
    call = step("dvlae.reporting.generation", "generate_from_prior")
    assert cli.main(["generate", "model", "new", "--kind", "prior", "--size", "64", "96"]) == 0
    assert (call["model"], call["output"]) == (Path("model"), Path("new"))
    assert (call["size"], call["realisations"], call["seed"], call["device"]) == ((64, 96), 1, 0, "auto")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--kind noise", "--images: found none"),
        ("--kind prior", "--size: found none"),
        ("--kind noise --images a --size 8 8", "--size: found [8, 8]"),
        ("--kind prior --size 8 8 --images a", "--images: found a"),
        ("--kind prior --size 8 8 --targets a", "--targets: found a, but --kind prior"),
        ("--kind noise --images a --targets b", "--targets: found b, but without --settings"),
        ("--kind prior --size 8 0", "--size: found 0, allowed: 1 or more"),
        ("--kind prior --size 8 8 --realisations 0", "--realisations: found 0, allowed: 1 or more"),
    ],
)
def test_generate_says_what_does_not_go_together(capsys, words, told):
    assert cli.main(["generate", "model", "new", *words.split()]) == 1
    assert told in capsys.readouterr().err


def test_evaluate_hands_on_what_goes_into_the_table(step):
    call = step("dvlae.evaluation.evaluate", "evaluate")
    words = "evaluate images denoised psnr.csv --dataset sem --method dvlae-rf40 --receptive-field 40 --seed 1"
    assert cli.main([*words.split(), "--settings", '{"border": 8}']) == 0
    assert (call["dataset"], call["method"], call["receptive_field"], call["seed"]) == ("sem", "dvlae-rf40", 40, 1)
    assert call["settings"].border == 8


def test_figures_evaluates_each_dataset_its_own_way(step):
    call = step("dvlae.reporting.figures", "make_figures")
    words = "figures a.csv b.csv --output figures --images one=a two=b/c=d"
    assert cli.main([*words.split(), "--settings", '{"one": {"border": 8}}']) == 0
    assert (call["psnr_csvs"], call["output"]) == ([Path("a.csv"), Path("b.csv")], Path("figures"))
    assert call["images"] == {"one": Path("a"), "two": Path("b/c=d")}
    assert (call["settings"]["one"].border, call["settings"]["two"].border) == (8, 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ('--settings {"b":{}}', "settings: found 'b', allowed: a"),
        ("--settings list.yaml", "list.yaml: found [1], allowed: a block for each of a"),
        ("--noise b=noise.json", "--noise: found 'b', allowed: the datasets of --images, a"),
        ("--targets b=targets.csv", "--targets: found 'b', allowed: the datasets of --images, a"),
    ],
)
def test_figures_know_no_dataset_without_images(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("list.yaml").write_text("[1]")
    assert cli.main(["figures", "a.csv", "--output", "figures", "--images", "a=images", *words.split()]) == 1
    assert capsys.readouterr().err == f"dvlae figures: error: {told}\n"


def test_a_dataset_is_a_file_or_its_settings(step, tmp_path):
    call = step("dvlae.data.prepare", "prepare")
    settings = {"source": {"kind": "files"}, "noisy": "*.tif", "axes": "YX", "noise_direction": "x"}
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(settings))
    for dataset in [str(file), json.dumps(settings)]:
        assert cli.main(["prepare", dataset, "--data", "data", "--output", "images"]) == 0
        assert call["dataset"].noisy == "*.tif"
        assert (call["data"], call["simulated"], call["output"]) == (Path("data"), None, Path("images"))


def test_status_reads_the_configuration_that_snakemake_is_given(step, tmp_path):
    call = step("dvlae.runs.status", "describe_status")
    (tmp_path / "mine.yaml").write_text("results: results/mine\n")
    assert cli.main(["status", "--configfile", str(tmp_path / "mine.yaml")]) == 0
    assert call["settings"].results == "results/mine"


def test_status_estimates_for_the_cores_of_snakemake_if_it_is_asked_to(step, tmp_path, capsys):
    step("dvlae.runs.status", "describe_status")
    call = step("dvlae.api.forecast.estimate", "estimate")
    (tmp_path / "mine.yaml").write_text("results: results/mine\n")
    words = ["status", "--configfile", str(tmp_path / "mine.yaml"), "--cores", "3"]
    assert cli.main([*words, "--estimate"]) == 0
    assert (call["settings"].results, call["cores"]) == ("results/mine", 3)
    assert cli.main(words) == 1
    assert "--cores: found 3, allowed only with --estimate" in capsys.readouterr().err


def test_tables_are_given_what_others_published(step, capsys):
    call = step("dvlae.reporting.tables", "make_tables")
    result = {"method": "theirs", "psnr": 30.5, "source": "a paper", "conditions": "ten images"}
    assert cli.main([*TABLES, "--published", json.dumps({"mine": {"published": [result]}})]) == 0
    (found,) = call["published"]["mine"]
    assert found.summary == {"method": "theirs", "psnr": 30.5, "source": "a paper; ten images"}
    del result["source"]
    assert cli.main([*TABLES, "--published", json.dumps({"mine": {"published": [result]}})]) == 1
    assert "settings: mine: published[0].source: " in capsys.readouterr().err


@pytest.mark.parametrize("words, remove, patches", [([], False, False), (["--remove", "--patches"], True, True)])
def test_clean_removes_only_when_told_to(step, tmp_path, words, remove, patches):
    call = step("dvlae.runs.disk_space", "clean")
    (tmp_path / "mine.yaml").write_text("{}")
    assert cli.main(["clean", "--configfile", str(tmp_path / "mine.yaml"), *words]) == 0
    assert (call["remove"], call["patches"]) == (remove, patches)


def test_a_terminated_command_says_so_in_its_log(capsys, step):
    step("dvlae.reporting.tables", "make_tables", SystemExit(cli.EXIT_TERMINATED))
    with pytest.raises(SystemExit):
        cli.main(TABLES)
    assert capsys.readouterr().err == "dvlae tables: terminated\n"


def test_predict_removes_checkpoints_only_when_told_to_and_only_once_it_is_finished(step, tmp_path):
    words = ["predict", "model", "images", "--denoised", "d", "--uncertainty", "u"]
    told = [*words, "--remove-checkpoints", str(tmp_path / "checkpoints")]
    (tmp_path / "checkpoints").mkdir()
    step("dvlae.inference.prediction", "predict", UserError("no model"))
    assert cli.main(told) == 1
    step("dvlae.inference.prediction", "predict")
    assert cli.main(words) == 0
    assert (tmp_path / "checkpoints").exists()
    assert cli.main(told) == 0
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("extract-patches images images", "output: found images, which would replace images images"),
        ("extract-patches a/images a", "output: found a, which would replace images a/images"),
        ("register /elsewhere/images .", "output: found ., which would replace the working folder"),
        ("register /elsewhere/images ..", "output: found .., which would replace the working folder"),
        ("predict m i --denoised d --uncertainty d", "--denoised: found d, which would replace --uncertainty d"),
        ("predict m i --denoised d --uncertainty u --samples i/", "--samples: found i, which would replace images i"),
        ("predict m/x i --denoised d --uncertainty u --remove-checkpoints m", "--remove-checkpoints: found m, which"),
        ("train p m --receptive-field 4 --noise-direction x --checkpoints p", "--checkpoints: found p, which"),
        ("run-method noisy images --denoised images", "--denoised: found images, which would replace images images"),
        ("evaluate images denoised images --dataset a --method b", "output: found images, which would replace images"),
    ],
)
def test_an_output_does_not_replace_an_input(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dvlae {words.split()[0]}: error: {told}")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("levels model images --image a --output a.png --crop 5", "--crop: found '5', allowed: FIRST:STOP"),
        ("levels model images --image a --output a.png --crop 9:5", "--crop: found '9:5', allowed: FIRST:STOP"),
        ("register '' targets.csv", "IMAGES: found '', allowed: a path"),
    ],
)
def test_a_value_that_cannot_be_is_told(words, told, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(shlex.split(words))
    assert ended.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


# All commands, one after the other, on tiny images --------------------------------------------------------------------

DATASET = {
    "source": {"kind": "download", "registry": "small.csv"},
    "noisy": "small/*.tif",
    "axes": "YX",
    "noise_direction": "x",
    "simulate": {"kernel": [1.0, 0.6, 0.36]},
}
IMAGES = {"a.tif", "b.tif", "c.tif"}
RUN, NOISY = "results/small/dvlae-rf4/seed0", "results/small/noisy/seed0"
EVALUATION = json.dumps({"data_range": 255})
CONFIGURATION = {
    "datasets": ["small"],
    "receptive_fields": [4],
    "results": "results",
    "device": "cpu",
    "model": {"levels": 2, "channels": 8, "latent_channels": 4, "direct_denoiser": "mean"},
    "training": {"patch_size": 16, "batch_size": 2, "max_steps": 3, "max_minutes": None},
    "prediction": {"samples": 2},
}


METHOD = {
    "description": "a copy",
    "command": "cp {noisy}/*.tif {denoised}; echo '{\"validation_loss\": 1}' > {record}",
    "environment": "mine.txt",
    "files": "../datasets/small.csv",
    "trains": True,
    "candidates": [{"width": 1}],
}


@dataclass
class Chain:
    """What running all commands left.

    Attributes
    ----------
    folder
        The working folder.
    printed
        What each command printed on standard output.
    logged
        What each command wrote to standard error.
    """

    folder: Path
    printed: dict[str, str]
    logged: dict[str, str]

    def run(self, *words: str) -> None:
        """Run one command; it has to succeed."""
        with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()) as logged:
            code = cli.main(list(words))
        assert code == 0, logged.getvalue()
        self.printed[words[0]], self.logged[words[0]] = printed.getvalue(), logged.getvalue()

    def files(self, path: str) -> set[str]:
        return {file.name for file in (self.folder / path).iterdir() if file.name[0] != "."}

    def json(self, path: str) -> dict:
        return json.loads((self.folder / path).read_text())

    def rows(self, path: str) -> list[dict[str, str]]:
        with (self.folder / path).open(newline="") as file:
            return list(csv.DictReader(file))


def write_inputs(folder: Path) -> None:
    """Write clean images into a mirror, their registry, the dataset's file and a configuration."""
    rng = np.random.default_rng(0)
    for place in ("config/datasets", "mirror/small"):
        (folder / place).mkdir(parents=True)
    rows = []
    for name in ("a", "b", "c"):
        path = folder / f"mirror/small/{name}.tif"
        tifffile.imwrite(
            path, (100 + 50 * np.sin(np.arange(48) / rng.uniform(3, 6)) + np.zeros((40, 1))).astype(np.uint8)
        )
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append([f"small/{name}.tif", sha256, f"http://127.0.0.1:1/{name}.tif"])
    with (folder / "config/datasets/small.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "sha256", "url"], *rows])
    (folder / "config/datasets/small.yaml").write_text(yaml.safe_dump(DATASET))
    (folder / "config/config.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    (folder / "config/methods").mkdir()
    (folder / "config/methods/mine.txt").touch()
    (folder / "config/methods/mine.yaml").write_text(yaml.safe_dump(METHOD))


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    chain = Chain(tmp_path_factory.mktemp("chain"), {}, {})
    write_inputs(chain.folder)
    dataset, images, simulated = "config/datasets/small.yaml", "results/small/images", "results/small/simulated"
    targets = "results/small/targets.csv"
    training = json.dumps({name: CONFIGURATION[name] for name in ("model", "training")})
    prediction = json.dumps({"prediction": {"samples": 2, "save_samples": 1}})
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(chain.folder)
        patched.delenv(MIRROR_VARIABLE, raising=False)
        chain.run("download", dataset, "--data", "data", "--mirror", "mirror", "--output", "data/small.files.csv")
        chain.run("simulate", dataset, "--data", "data", "--output", simulated)
        chain.run("prepare", dataset, "--data", "data", "--simulated", simulated, "--output", images)
        chain.run("extract-patches", images, "results/small/patches", "--settings", '{"patch_size": 16}')
        chain.run("register", images, targets, "--settings", EVALUATION)
        chain.run(
            "diagnose", images, "--output", "results/figures/noise_small.json", "--dataset", "small",
            "--noise-direction", "x", "--settings", EVALUATION, "--targets", targets,
        )  # fmt: skip
        chain.run(
            "train", "results/small/patches", f"{RUN}/model", "--receptive-field", "4", "--noise-direction", "x",
            "--checkpoints", f"{RUN}/checkpoints", "--settings", training, "--device", "cpu",
        )  # fmt: skip
        assert (chain.folder / RUN / "checkpoints").is_dir()
        chain.run(
            "predict", f"{RUN}/model", images, "--denoised", f"{RUN}/denoised", "--uncertainty", f"{RUN}/uncertainty",
            "--samples", f"{RUN}/samples", "--settings", prediction, "--device", "cpu",
            "--remove-checkpoints", f"{RUN}/checkpoints",
        )  # fmt: skip
        chain.run("export", f"{RUN}/model", "exported/small.pt", "--format", "torchscript", "--images", images)
        chain.run(
            "likelihood", f"{RUN}/model", images, "--output", "likelihood.csv", "--select", "0:2", "--samples", "2"
        )
        chain.run("levels", f"{RUN}/model", images, "--image", "a", "--output", "levels.png", "--crop", "0:16", "8:24")
        chain.run("generate", f"{RUN}/model", "prior", "--kind", "prior", "--size", "16", "24", "--realisations", "2")
        measured = ["--settings", EVALUATION, "--targets", targets]
        chain.run("generate", f"{RUN}/model", "new", "--kind", "noise", "--images", images, *measured)
        chain.run("make-environment", "config/methods/mine.txt", "--output", "data/environments/mine.json")
        words = ["--data", "data", "--mirror", "mirror", "--output", "data/methods/mine.json"]
        chain.run("download-code", "config/datasets/small.csv", *words)
        mine = ["--environment", "data/environments/mine.json", "--code", "data/methods/mine.json", "--minutes", "1"]
        chain.run("search-method", "mine", images, "--output", "results/small/mine/search.json", *mine, *measured)
        chain.run("run-method", "noisy", images, "--denoised", f"{NOISY}/denoised", *measured)
        measured += ["--dataset", "small"]
        for folder, method in ((NOISY, ["noisy"]), (RUN, ["dvlae-rf4", "--receptive-field", "4"])):
            chain.run("evaluate", images, f"{folder}/denoised", f"{folder}/psnr.csv", "--method", *method, *measured)
        parts = ["parts/1-of-2", "parts/2-of-2"]
        for number, part in enumerate(parts, start=1):
            words = ["--denoised", f"{part}/denoised", "--settings", EVALUATION, "--part", f"{number}/2"]
            chain.run("run-method", "gaussian", images, *words)
        chain.run("gather", *parts, "--output", "joined/denoised", "joined/method.json")
        chain.run("tables", f"{RUN}/psnr.csv", f"{NOISY}/psnr.csv", "--output", "results/tables")
        chain.run(
            "figures", f"{RUN}/psnr.csv", f"{NOISY}/psnr.csv", "--output", "results/figures",
            "--images", f"small={images}", "--noise", "small=results/figures/noise_small.json",
            "--targets", f"small={targets}", "--settings", json.dumps({"small": json.loads(EVALUATION)}),
        )  # fmt: skip
        torch.save(small_state(), "theirs.pt")
        chain.run("import-weights", "theirs.pt", "models/theirs", "--mean", "120", "--std", "30")
        chain.run("rank", images, f"{RUN}/model", "models/theirs", "--output", "rank.csv")
        chain.run("init", "mirror/small/a.tif", "--noise-direction", "x", "--output", "project")
        chain.run("denoise", "--model", f"{RUN}/model", "mirror/small/a.tif", "--output", "own", "--samples", "2")
        chain.run("status")
        chain.run("clean", "--patches")
        chain.run("completion", "bash")
    return chain


def test_every_command_is_run_for_real(chain):
    assert set(chain.printed) == set(COMMANDS)


def test_search_method_records_the_settings_that_it_chose(chain):
    assert chain.json("results/small/mine/search.json")["chosen"] == {"width": 1}


def test_gather_joins_the_images_of_two_parts(chain):
    assert [len(chain.files(f"parts/{part}/denoised")) for part in ("1-of-2", "2-of-2")] == [1, 2]
    assert chain.files("joined/denoised") == IMAGES
    assert json.loads((chain.folder / "joined/method.json").read_text())["method"] == "gaussian"


def test_only_the_commands_whose_product_is_text_print(chain):
    assert {name for name, text in chain.printed.items() if text} == {"status", "clean", "completion", "init"}


def test_download_takes_the_files_from_the_mirror_and_lists_them(chain):
    assert {row["file"] for row in chain.rows("data/small.files.csv")} == {f"small/{name}" for name in IMAGES}
    assert chain.files("data/small") == IMAGES


def test_simulate_prepare_and_extract_patches_make_the_folders_of_the_training(chain):
    for folder in ("simulated", "images"):
        assert chain.files(f"results/small/{folder}") == {"noisy", "clean", "manifest.csv"}
        assert chain.files(f"results/small/{folder}/noisy") == IMAGES
    assert chain.files("results/small/patches") == {"train.tif", "val.tif", "patches.json"}


def test_import_weights_makes_a_model_that_denoises(chain):
    assert chain.files("models/theirs") == {"model.json", "weights.safetensors"}
    assert "noise along x, receptive field 8" in chain.logged["import-weights"]
    assert chain.json("models/theirs/model.json")["architecture"]["network"] == "paper"


def test_export_says_what_the_file_leaves_out(chain):
    assert chain.files("exported") == {"small.pt"}
    assert "It gives neither an uncertainty nor samples." in chain.logged["export"]


def test_register_writes_a_row_for_each_image(chain):
    assert [row["image"] for row in chain.rows("results/small/targets.csv")] == ["a", "b", "c"]


def test_a_receptive_field_without_a_direction_is_one_line(chain, capsys):
    words = ["train", str(chain.folder / "results/small/patches"), str(chain.folder / "other")]
    assert cli.main([*words, "--receptive-field", "40", "--noise-direction", "none", "--device", "cpu"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "dvlae train: error: receptive field: found 40, allowed: 0, as the noise direction is none"
    )


def test_diagnose_finds_the_direction_of_the_noise(chain):
    found = chain.json("results/figures/noise_small.json")
    assert (found["dataset"], found["direction"], found["warning"]) == ("small", "x", None)
    assert {"noise_small.png", "noise_small.svg"} <= chain.files("results/figures")


def test_train_and_predict_leave_a_model_and_images_but_no_checkpoints(chain):
    assert chain.files(RUN) == {
        *("model", "denoised", "uncertainty", "samples", "prediction.json", "psnr.csv", "evaluation.json")
    }
    assert chain.files(f"{RUN}/model") == {"history.csv", "model.json", "run.json", "weights.safetensors"}
    assert chain.json(f"{RUN}/model/run.json")["steps"] == 3
    for folder in ("denoised", "uncertainty", "samples"):
        assert chain.files(f"{RUN}/{folder}") == IMAGES


def test_rank_compares_the_models(chain):
    rows = chain.rows("rank.csv")
    assert {row["model"] for row in rows} == {f"{RUN}/model", "models/theirs"}
    assert [float(row["excess"]) > 0 for row in rows] == [False, True]


def test_likelihood_bounds_that_of_the_selected_images(chain):
    rows = chain.rows("likelihood.csv")
    assert [(row["image"], row["samples"]) for row in rows] == [("a", "2"), ("b", "2")]
    assert all(float(row["elbo"]) <= float(row["bound"]) < 0 for row in rows)


def test_levels_makes_a_picture_twice(chain):
    assert {"levels.png", "levels.svg"} <= chain.files(".")


def test_generate_makes_images_of_the_size_that_is_asked_for(chain):
    assert chain.files("prior/noisy") == {"prior_0.tif", "prior_1.tif"}
    assert tifffile.imread(chain.folder / "prior/noisy/prior_0.tif").shape == (16, 24)


def test_generate_makes_noise_on_given_images_and_compares_it(chain):
    assert chain.files("new/noisy") == {"a_0.tif", "b_0.tif", "c_0.tif"}
    assert {"noise.csv", "generated_noise.png", "generated_noise.svg"} <= chain.files("new")


def test_run_method_and_evaluate_measure_what_was_denoised(chain):
    assert chain.files(f"{NOISY}/denoised") == {"the-noisy-images.txt"}
    rows = chain.rows(f"{NOISY}/psnr.csv")
    assert [row["psnr"] for row in rows] == [row["psnr_noisy"] for row in rows]
    assert [row["receptive_field"] for row in chain.rows(f"{RUN}/psnr.csv")] == ["4"] * 3
    assert "evaluate: small, dvlae-rf4, seed 0: " in chain.logged["evaluate"]


def test_tables_and_figures_show_the_runs(chain):
    assert {row["method"] for row in chain.rows("results/tables/summary.csv")} == {"dvlae-rf4", "noisy"}
    figures = ("panel", "removed_noise", "training_curves", "kl_per_level", "paired_psnr", "calibration")
    assert {f"{figure}_small.{ext}" for figure in figures for ext in ("png", "svg")} <= chain.files("results/figures")


def test_status_counts_the_finished_runs(chain):
    assert chain.printed["status"].startswith("results: 2 of 3 runs finished, 0 running, 0 failed, 1 waiting")


def test_clean_shows_the_sizes(chain):
    assert chain.printed["clean"].startswith("results: ")
    assert chain.printed["clean"].endswith("nothing that can be removed\n")
