import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from dvlae.api.project import make_project
from dvlae.cli import main
from dvlae.config.loading import load_configuration, load_dataset
from dvlae.data.manifest import read_manifest
from dvlae.data.prepare import prepare
from dvlae.system.errors import UserError


@pytest.fixture
def stack(tmp_path):
    """Return a stack with noise along y, under a name with signs that YAML and shells read in their own way."""
    random = np.random.default_rng(0)
    white = random.normal(size=(4, 68, 64))
    noise = white[:, 4:] + white[:, 3:-1] + white[:, 2:-2] + white[:, 1:-3]
    path = tmp_path / "my 'stack' [1] #2.tif"
    tifffile.imwrite(path, (200 + 10 * noise).astype(np.uint16), imagej=True, metadata={"axes": "TYX"})
    return path


def test_the_files_say_how_the_images_are_read_and_what_was_measured(stack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = make_project([str(stack)], minutes=5)
    folder = tmp_path / "my_stack_1_2"
    name, dataset = load_dataset("my_stack_1_2", folder / "config/datasets")
    assert dataset.noisy == str(stack) and dataset.noise_direction == "y"
    settings = load_configuration([folder / "config/config.yaml"])
    assert settings.datasets == [name] and settings.training.max_minutes == 5 and settings.receptive_fields[0] >= 3
    assert "cd my_stack_1_2 && snakemake --cores all" in said


def test_what_the_user_says_is_written(stack, tmp_path):
    make_project([str(stack), str(stack.parent)], tmp_path / "new", noise_direction="x", receptive_field=12)
    (file,) = (tmp_path / "new/config/datasets").iterdir()
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert written["noise_direction"] == "x" and written["noisy"] == [str(stack), str(stack.parent)]
    assert yaml.safe_load((tmp_path / "new/config/config.yaml").read_text())["receptive_fields"] == [12]


@pytest.mark.parametrize("minutes, channels", [(1, 16), (5, 48)])
def test_the_size_of_the_network_follows_the_time_and_is_written(stack, tmp_path, minutes, channels):
    make_project([str(stack)], tmp_path / "new", minutes=minutes)
    written = yaml.safe_load((tmp_path / "new/config/config.yaml").read_text())
    assert written["model"].keys() >= {"levels", "channels", "latent_channels"}
    assert written["model"]["channels"] == channels and written["training"]["max_minutes"] == minutes


def test_results_of_earlier_commands_are_no_images(stack, tmp_path):
    result = tmp_path / "scan_denoised.tif"
    result.write_bytes(stack.read_bytes())
    record = {"request": {}, "results": [result.name]}
    (tmp_path / "scan_denoised.json").write_text(json.dumps(record), encoding="utf-8")
    make_project([str(tmp_path)], tmp_path / "new")
    (file,) = (tmp_path / "new/config/datasets").iterdir()
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["noisy"] == str(stack)


def test_planes_are_images_in_the_workflow_too(stack, tmp_path):
    tifffile.imwrite(stack, tifffile.imread(stack), imagej=True, metadata={"axes": "ZYX"})
    make_project([str(stack)], tmp_path / "new")
    _, dataset = load_dataset("my_stack_1_2", tmp_path / "new/config/datasets")
    assert dataset.axes == "SYX" and dataset.axes_override


def test_options_of_files_are_written_and_followed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).poisson(100, (3, 2, 48, 64)).astype(np.uint16)
    with tifffile.TiffWriter("two.ome.tif") as file:
        for name in ("first", "second"):
            file.write(pixels, metadata={"axes": "ZCYX", "Name": name})
    assert main(["init", "two.ome.tif", "--minutes", "1"]) == 1
    assert "set --series to the number or the name" in capsys.readouterr().err
    options = ["--series", "second", "--axes", "SCYX", "--channel", "1", "--minutes", "1"]
    assert main(["init", "two.ome.tif", *options]) == 1
    assert "--override-axes follows --axes" in capsys.readouterr().err
    assert main(["init", "two.ome.tif", *options, "--override-axes", "--output", "new"]) == 0
    _, dataset = load_dataset("two", tmp_path / "new/config/datasets")
    assert (dataset.axes, dataset.axes_override, dataset.channel, dataset.series) == ("SCYX", True, 1, "second")
    prepare(dataset, tmp_path, None, tmp_path / "images")
    assert [image.shape for image in read_manifest(tmp_path / "images")] == [(1, 48, 64)] * 3


def test_volumes_stay_volumes_for_noise_along_z(tmp_path):
    pixels = np.random.default_rng(0).poisson(100, (6, 40, 40)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata={"axes": "ZYX"})
    make_project([str(tmp_path / "a.tif")], tmp_path / "new", noise_direction="z", minutes=1)
    _, dataset = load_dataset("a", tmp_path / "new/config/datasets")
    assert (dataset.axes, dataset.axes_override, dataset.noise_direction) == ("auto", False, "z")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--minutes", "inf", "--minutes: found inf, allowed: a number above 0"),
        ("--receptive-field", "-1", "--receptive-field: found -1, allowed: auto, or a number of pixels"),
        ("--override-axes", None, "--override-axes: found without --axes, allowed only with it"),
        ("--channel", "-1", "channel: found -1"),
    ],
)
def test_values_that_are_not_allowed_are_refused_in_one_line(stack, tmp_path, capsys, option, value, words):
    arguments = [option, *([] if value is None else [value]), "--output", str(tmp_path / "new")]
    assert main(["init", str(stack), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_folder_that_exists_is_left_alone(stack, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=r"there: exists already, allowed: the name of a new folder"):
        make_project([str(stack)], tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_images_that_cannot_be_read_leave_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "nothing.tif"]) == 1
    assert "nothing.tif" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.mark.workflow
def test_the_workflow_runs_with_these_files(stack, tmp_path):
    folder = tmp_path / "new"
    make_project([str(stack)], folder)
    file = folder / "config/config.yaml"
    settings = yaml.safe_load(file.read_text())
    settings |= {"results": "results/new", "receptive_fields": [4]}
    settings["model"] = {"levels": 2, "channels": 8, "latent_channels": 4}
    settings["training"] = {"max_steps": 3, "patch_size": 32, "workers": 1}
    settings["prediction"] = {"samples": 2}
    file.write_text(yaml.safe_dump(settings))
    snakemake = [str(Path(sys.executable).with_name("snakemake")), "--cores", "1"]
    run = partial(subprocess.run, cwd=folder, env=os.environ, capture_output=True, text=True, timeout=500)
    planned = run([*snakemake, "--dry-run"])
    assert planned.returncode == 0 and "everything" in planned.stdout + planned.stderr
    done = run([*snakemake, f"results/new/{settings['datasets'][0]}/dvlae-rf4/seed0/prediction.json"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.glob("results/new/*/*/*/denoised/*.tif"))
