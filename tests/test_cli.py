import errno
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dvlae import cli
from dvlae.system.errors import UserError

COMMANDS = [
    "download",
    "simulate",
    "prepare",
    "extract-patches",
    "train",
    "predict",
    "likelihood",
    "levels",
    "generate",
    "register",
    "baseline",
    "evaluate",
    "tables",
    "figures",
    "status",
    "clean",
]
HEAVY = ["torch", "lightning", "skimage", "scipy", "matplotlib", "pandas", "snakemake"]


@pytest.fixture
def step(monkeypatch):
    """Put a function in the place of a step's; return what it was called with."""

    def replace(module: str, function: str) -> dict:
        call = {}

        def record(*arguments, **named):
            call.update(named, arguments=arguments)

        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{function: record}))
        return call

    return replace


def failing(error):
    def run(arguments):
        raise error

    return run


def test_the_command_line_and_the_settings_load_no_heavy_library():
    code = f"import sys, dvlae.cli, dvlae.config; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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
def test_a_disk_that_cannot_be_written_is_one_line(monkeypatch, capsys, error, words):
    monkeypatch.setattr(cli, "_tables", failing(error))
    assert cli.main(["tables", "psnr.csv", "--output", "tables"]) == 1
    assert capsys.readouterr().err == f"dvlae tables: error: {words}\n"


def test_ctrl_c_ends_with_130(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_tables", failing(KeyboardInterrupt()))
    assert cli.main(["tables", "psnr.csv", "--output", "tables"]) == 130
    assert capsys.readouterr().err == "dvlae tables: interrupted\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli, "_tables", failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["tables", "psnr.csv", "--output", "tables"])


def test_a_terminated_command_removes_what_is_half_written(tmp_path):
    code = f"""
import os, signal, time
from dvlae import cli
from dvlae.files import atomic_folder
def run(arguments):
    with atomic_folder({str(tmp_path / "out")!r}) as folder:
        (folder / "half").touch()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
cli._tables = run
raise SystemExit(cli.main(["tables", "a.csv", "--output", "out"]))
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == 143
    assert list(tmp_path.iterdir()) == []


def test_train_hands_on_what_it_was_given(step):
    call = step("dvlae.training.train", "train")
    settings = json.dumps({"model": {"levels": 2}, "training": {"max_steps": 5}})
    words = "train patches model --receptive-field 40 --noise-direction y --seed 3 --checkpoints c --device cpu"
    assert cli.main([*words.split(), "--settings", settings]) == 0
    assert call["arguments"] == (Path("patches"), Path("model"))
    assert (call["receptive_field"], call["noise_direction"], call["seed"]) == (40, "y", 3)
    assert call["checkpoints"] == Path("c")
    assert (call["settings"].model.levels, call["settings"].training.max_steps) == (2, 5)
    assert call["settings"].device == "cpu"
    assert call["tensorboard"] is None
    assert cli.main([*words.split(), "--tensorboard"]) == 0
    assert call["tensorboard"] == Path("tensorboard")


def test_predict_takes_tile_batch_and_device_from_the_command_line(step):
    call = step("dvlae.inference.prediction", "predict")
    words = "predict model images --denoised d --uncertainty u --samples s --tile 128 --batch-size 2 --device cpu"
    assert cli.main([*words.split(), "--settings", '{"prediction": {"samples": 4}}']) == 0
    assert call["arguments"] == (Path("model"), Path("images"), Path("d"), Path("u"), Path("s"))
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
    assert call["arguments"] == (Path("model"), Path("images"), Path("a.csv"))
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
    assert call["arguments"] == (Path("model"), Path("images"), Path("a.png"))
    assert (call["image"], call["crop"], call["seed"]) == ("a", [(10, 20), (0, 30)], 2)


def test_a_tile_that_is_too_small_is_the_users_mistake(capsys):
    words = "predict model images --denoised d --uncertainty u --samples s --tile 1"
    assert cli.main(words.split()) == 1
    assert "tile: found 1" in capsys.readouterr().err


def test_generate_hands_on_what_new_noise_needs(step):
    call = step("dvlae.reporting.generation", "generate_noise")
    words = "generate model new --kind noise --images images --realisations 3 --seed 4 --device cpu"
    assert cli.main([*words.split(), "--settings", '{"border": 8}']) == 0
    assert call["arguments"] == (Path("model"), Path("images"), Path("new"))
    assert (call["realisations"], call["seed"], call["device"], call["settings"].border) == (3, 4, "cpu", 8)


def test_generate_hands_on_what_the_prior_needs(step):
    call = step("dvlae.reporting.generation", "generate_from_prior")
    assert cli.main("generate model new --kind prior --size 64 96".split()) == 0
    assert call["arguments"] == (Path("model"), Path("new"))
    assert (call["size"], call["realisations"], call["seed"], call["device"]) == ((64, 96), 1, 0, "auto")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--kind noise", "--images: found none"),
        ("--kind prior", "--size: found none"),
        ("--kind noise --images a --size 8 8", "--size: found [8, 8]"),
        ("--kind prior --size 8 8 --images a", "--images: found a"),
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
    assert call["arguments"] == ([Path("a.csv"), Path("b.csv")], Path("figures"))
    assert call["images"] == {"one": Path("a"), "two": Path("b/c=d")}
    assert (call["settings"]["one"].border, call["settings"]["two"].border) == (8, 0)


def test_a_dataset_is_a_file_or_its_settings(step, tmp_path):
    call = step("dvlae.data.prepare", "prepare")
    settings = {"source": {"kind": "files"}, "noisy": "*.tif", "axes": "YX", "noise_direction": "x"}
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(settings))
    for dataset in [str(file), json.dumps(settings)]:
        assert cli.main(["prepare", dataset, "--data", "data", "--output", "images"]) == 0
        assert call["arguments"][0].noisy == "*.tif"
        assert call["arguments"][1:] == (Path("data"), None, Path("images"))


def test_status_reads_the_configuration_that_snakemake_is_given(step, tmp_path):
    call = step("dvlae.runs.status", "print_status")
    (tmp_path / "mine.yaml").write_text("results: results/mine\n")
    assert cli.main(["status", "--configfile", str(tmp_path / "mine.yaml")]) == 0
    assert call["arguments"][0].results == "results/mine"


@pytest.mark.parametrize("words, remove, patches", [([], False, False), (["--remove", "--patches"], True, True)])
def test_clean_removes_only_when_told_to(step, tmp_path, words, remove, patches):
    call = step("dvlae.runs.disk_space", "clean")
    (tmp_path / "mine.yaml").write_text("{}")
    assert cli.main(["clean", "--configfile", str(tmp_path / "mine.yaml"), *words]) == 0
    assert (call["remove"], call["patches"]) == (remove, patches)


def test_a_terminated_command_says_so_in_its_log(capsys, monkeypatch):
    monkeypatch.setattr(cli, "_status", failing(SystemExit(cli.EXIT_TERMINATED)))
    with pytest.raises(SystemExit):
        cli.main(["status"])
    assert capsys.readouterr().err == "dvlae status: terminated\n"
