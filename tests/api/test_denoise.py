import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

import dvlae
from dvlae import cli
from dvlae.api import session
from dvlae.models.files import read_architecture
from dvlae.reporting.page.measurements import Measurement
from noisy_images import noise, scene

FRAMES, SHAPE = 3, (48, 64)
TIME = ["--minutes", "0.01", "--samples", "2"]
RESULTS = {
    "stack.tif", "stack_denoised.tif", "stack_uncertainty.tif", "stack_denoised.html", "stack_denoised.json",
    "stack_denoised_model",
}  # fmt: skip


def images(seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Return frames whose noise is correlated along x."""
    frames = [scene(seed + i, SHAPE) + 12 * noise(seed + i, SHAPE, along="x") for i in range(FRAMES)]
    return np.round(scale * np.clip(frames, 0, 255)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the working folder, with a stack of images."""
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("stack.tif", images(), imagej=True, metadata={"axes": "TYX"}, resolution=(4, 4))
    return tmp_path


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Return a folder with a stack and its results."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tifffile.imwrite("stack.tif", images(), imagej=True, metadata={"axes": "TYX"}, resolution=(4, 4))
        assert cli.main(["denoise", "stack.tif", *TIME]) == 0
    return folder


@pytest.fixture
def done(made, tmp_path, monkeypatch):
    """Return a copy of the folder, as the working folder."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def interrupt(*arguments, **options):
    raise KeyboardInterrupt


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_stack_gives_images_a_model_a_page_and_a_record(made):
    assert names(made) == RESULTS
    for kind in ("denoised", "uncertainty"):
        with tifffile.TiffFile(made / f"stack_{kind}.tif") as file:
            assert file.is_imagej and file.series[0].axes == "TYX"
            assert file.asarray().shape == (FRAMES, *SHAPE) and file.asarray().dtype == np.float32
    assert "<html" in (made / "stack_denoised.html").read_text(encoding="utf-8")
    record = json.loads((made / "stack_denoised.json").read_text())
    assert set(record["results"]) == RESULTS - {"stack.tif", "stack_denoised.json"}
    assert record["request"]["minutes"] == 0.01
    np.testing.assert_array_equal(tifffile.imread(made / "stack.tif"), images())


def test_the_model_is_that_of_the_workflow_and_of_python(made):
    model = dvlae.load(made / "stack_denoised_model")
    assert model.noise_direction == "x" and model.receptive_field > 0


def test_the_same_command_again_ends_at_once(done, capsys, monkeypatch):
    monkeypatch.setattr("dvlae.api.session.prepare", None)
    before = {path: path.stat().st_mtime_ns for path in done.iterdir()}
    assert cli.main(["denoise", "stack.tif", *TIME]) == 0
    assert "all is there" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in done.iterdir()} == before


@pytest.mark.parametrize("name", ["stack_denoised.tif", "stack_denoised_model/weights.safetensors"])
def test_a_truncated_result_is_missed(done, capsys, name):
    (done / name).write_bytes((done / name).read_bytes()[:1000])
    assert cli.main(["denoise", "stack.tif", *TIME]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{Path(name).name}: is missing, or not as this command wrote it; add --overwrite" in line


@pytest.mark.parametrize("options", [["--minutes", "0.02"], ["--seed", "1"], ["--noise-direction", "y"]])
def test_results_of_another_command_are_not_replaced(done, capsys, options):
    before = (done / "stack_denoised.tif").read_bytes()
    assert cli.main(["denoise", "stack.tif", *TIME, *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "stack_denoised.tif: was made by another command" in line and "--overwrite" in line
    assert options[0].strip("-").replace("-", "_") in line
    assert (done / "stack_denoised.tif").read_bytes() == before
    assert names(done) == RESULTS


def test_results_of_other_images_are_not_replaced(done, capsys):
    tifffile.imwrite("stack.tif", images(9), photometric="minisblack")
    assert cli.main(["denoise", "stack.tif", *TIME]) == 1
    assert "other images" in capsys.readouterr().err


def test_files_of_unknown_origin_are_not_replaced(folder, capsys):
    (folder / "stack_uncertainty.tif").touch()
    assert cli.main(["denoise", "stack.tif", *TIME]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "stack_uncertainty.tif: is there, and no stack_denoised.json says that dvlae made it" in line
    assert names(folder) == {"stack.tif", "stack_uncertainty.tif"}


@pytest.mark.parametrize("name", ["stack_denoised_work", "stack_denoised_model", "stack_denoised.html"])
@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--axes", "ZCYX"]])
def test_a_folder_of_the_user_is_never_removed(folder, capsys, name, options):
    (folder / name).mkdir()
    (folder / name / "mine.txt").touch()
    assert cli.main(["denoise", "stack.tif", *TIME, *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line and "--output DIR" in line
    assert names(folder) == {"stack.tif", name} and names(folder / name) == {"mine.txt"}


def test_overwrite_replaces_them(done):
    before = (done / "stack_denoised.tif").read_bytes()
    assert cli.main(["denoise", "stack.tif", *TIME, "--seed", "1", "--overwrite"]) == 0
    assert (done / "stack_denoised.tif").read_bytes() != before
    assert json.loads((done / "stack_denoised.json").read_text())["request"]["seed"] == 1
    assert names(done) == RESULTS


@pytest.mark.parametrize("step", ["extract_patches", "train", "predict"])
def test_an_interrupted_command_goes_on_where_it_was(folder, monkeypatch, capsys, step):
    def forbidden(*arguments, **options):
        raise AssertionError("done already")

    with monkeypatch.context() as patch:
        patch.setattr(f"dvlae.api.session.{step}", interrupt)
        assert cli.main(["denoise", "stack.tif", *TIME]) == 130
    assert "the same command goes on with what is in stack_denoised_work" in capsys.readouterr().err
    assert names(folder) == {"stack.tif", "stack_denoised_work"}
    before = ["prepare", "diagnose", "extract_patches", "train", "predict"]
    with monkeypatch.context() as patch:
        for earlier in before[: before.index(step)]:
            patch.setattr(f"dvlae.api.session.{earlier}", forbidden)
        assert cli.main(["denoise", "stack.tif", *TIME]) == 0
    assert names(folder) == RESULTS


def test_a_killed_command_goes_on_after_its_training(folder, monkeypatch):
    process = subprocess.Popen([sys.executable, "-m", "dvlae", "denoise", "stack.tif", *TIME])
    try:
        while not (folder / "stack_denoised_work" / "model").exists():
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    monkeypatch.setattr("dvlae.api.session.train", None)
    assert cli.main(["denoise", "stack.tif", *TIME]) == 0
    assert names(folder) == RESULTS


def test_an_interruption_while_results_are_moved_loses_nothing(folder, monkeypatch):
    move, moved = shutil.move, []

    def move_one(old, new):
        if moved:
            raise KeyboardInterrupt
        moved.append(new)
        move(old, new)

    with monkeypatch.context() as patch:
        patch.setattr("dvlae.api.places.shutil.move", move_one)
        assert cli.main(["denoise", "stack.tif", *TIME]) == 130
    assert cli.main(["denoise", "stack.tif", *TIME]) == 0
    assert names(folder) == RESULTS
    assert set(json.loads((folder / "stack_denoised.json").read_text())["results"]) == RESULTS - {
        "stack.tif", "stack_denoised.json"
    }  # fmt: skip


def test_an_unfinished_training_is_not_replaced_by_another_command(folder, capsys):
    assert cli.main(["denoise", "stack.tif", *TIME, "--quick"]) == 0
    assert cli.main(["denoise", "stack.tif", *TIME, "--seed", "1"]) == 1
    error = capsys.readouterr().err
    assert "stack_denoised_work" in error and "seed 0 instead of 1" in error and "--overwrite" in error
    assert cli.main(["denoise", "stack.tif", *TIME, "--seed", "1", "--overwrite"]) == 0
    assert names(folder) == RESULTS


def test_what_another_command_did_before_its_training_is(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("dvlae.api.session.train", interrupt)
        assert cli.main(["denoise", "stack.tif", *TIME]) == 130
    assert cli.main(["denoise", "stack.tif", *TIME, "--seed", "1"]) == 0
    assert names(folder) == RESULTS


def test_a_preview_stands_there_first_and_the_training_goes_on_from_it(folder, capsys):
    options = ["--minutes", "0.05", "--samples", "2"]
    assert cli.main(["denoise", "stack.tif", *options, "--quick"]) == 0
    assert "without --quick goes on" in capsys.readouterr().err
    assert names(folder) == {"stack.tif", "stack_denoised.html", "stack_denoised_work"}
    preview = (folder / "stack_denoised.html").read_text(encoding="utf-8")
    assert cli.main(["denoise", "stack.tif", *options]) == 0
    assert re.search(r"resuming from step [1-9]", capsys.readouterr().err)
    assert names(folder) == RESULTS
    assert (folder / "stack_denoised.html").read_text(encoding="utf-8") != preview


@pytest.mark.parametrize(("unit", "offset"), [(1e20, 0), (1.0, 1e12)])
def test_a_preview_has_the_grey_values_of_the_file(folder, unit, offset):
    tifffile.imwrite("stack.tif", images() * unit + offset, photometric="minisblack", metadata={"axes": "TYX"})
    assert cli.main(["denoise", "stack.tif", *TIME, "--quick"]) == 0
    (noisy,) = Path("stack_denoised_work/preview/images/noisy").iterdir()
    np.testing.assert_allclose(tifffile.imread(noisy) - offset, images()[1] * unit, rtol=1e-6)
    (denoised,) = Path("stack_denoised_work/preview/denoised").iterdir()
    assert abs((tifffile.imread(denoised) - offset) / unit - images()[1]).max() < 300
    page = Path("stack_denoised.html").read_text(encoding="utf-8")
    scale = re.search(r'<p class="scale"><span>([^<]*)</span>.*?<span>([^<]*)</span>', page)
    black, white = (float(text.replace("−", "-")) for text in scale.groups())
    assert offset <= black < offset + 50 * unit < white <= offset + 255 * unit


def test_a_preview_is_made_on_the_way_where_there_is_time(folder, capsys, monkeypatch):
    monkeypatch.setattr("dvlae.api.denoise.PREVIEW_MINUTES", 0.01)
    assert cli.main(["denoise", "stack.tif", "--minutes", "0.03", "--samples", "2"]) == 0
    lines = capsys.readouterr().err
    assert lines.index("stack_denoised.html shows a preview") < lines.index("resuming from step")
    assert names(folder) == RESULTS


def test_an_interrupted_training_goes_on_with_the_network_that_was_chosen_first(folder, monkeypatch, capsys):
    measured = []

    def measure(patches, *, settings, **arguments):
        measured.append(settings.model.channels)
        return 1.0

    monkeypatch.setattr("dvlae.api.session.measure_rate", measure)
    arguments = ["denoise", "stack.tif", "--minutes", "6", "--samples", "2"]
    with monkeypatch.context() as patch:
        patch.setattr("dvlae.api.session.train", interrupt)
        assert cli.main(arguments) == 130
    assert measured == [48, 16]
    said = capsys.readouterr().err
    assert "16 channels" in said and "48 channels would get about 360 steps" in said
    with monkeypatch.context() as patch:
        trained = []
        patch.setattr("dvlae.api.session.train", lambda *_, **options: trained.append(options) or interrupt())
        assert cli.main(arguments) == 130
    assert measured == [48, 16]
    assert trained[0]["settings"].model.channels == 16 and trained[0]["expected_steps"] == 360


def test_a_preview_says_how_long_the_denoising_takes(folder, monkeypatch, capsys):
    monkeypatch.setattr("dvlae.api.session.read_json", lambda path: {"seconds": 40.0})
    assert cli.main(["denoise", "stack.tif", "--minutes", "0.05", "--samples", "24", "--quick"]) == 0
    # Three images, and three times as many samples.
    assert "as measured with it, denoising takes 6 min" in capsys.readouterr().err


def test_another_image_takes_the_model_and_no_training(done, monkeypatch, capsys):
    monkeypatch.setattr("dvlae.api.session.train", None)
    tifffile.imwrite("other.tif", images(7)[0])
    assert cli.main(["denoise", "--model", "stack_denoised_model", "other.tif"]) == 0
    assert names(done) - RESULTS == {
        "other.tif", "other_denoised.tif", "other_uncertainty.tif", "other_denoised.html", "other_denoised.json"
    }  # fmt: skip
    assert tifffile.imread("other_denoised.tif").shape == SHAPE


@pytest.mark.parametrize("samples", ["0", "1"])
def test_one_pass_has_no_uncertainty_and_none_of_older_results_stays(done, capsys, samples):
    assert cli.main(["denoise", "stack.tif", *TIME[:2], "--samples", samples, "--overwrite"]) == 0
    assert "the direct denoiser gives no uncertainty; --samples 16 does" in capsys.readouterr().err
    assert names(done) == RESULTS - {"stack_uncertainty.tif"}


def test_images_unlike_those_of_the_training_are_warned_of_and_the_record_keeps_it(done, capsys):
    tifffile.imwrite("other.tif", images(7, scale=0.4)[0])
    arguments = ["denoise", "--model", "stack_denoised_model", "other.tif", "--samples", "2"]
    assert cli.main(arguments) == 0
    assert "so estimates are unreliable: other" in capsys.readouterr().err
    warnings = json.loads((done / "other_denoised.json").read_text())["warnings"]
    assert any("so estimates are unreliable: other" in line for line in warnings)
    assert cli.main([*arguments, "--rescale", "--overwrite"]) == 0
    assert "unreliable" not in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(folder, capsys):
    assert cli.main(["denoise", "stack.tif", "--dry-run"]) == 0
    said = capsys.readouterr().out
    for words in (
        "TYX 3 x 48 x 64",
        "30 minutes",
        "48 channels",
        "or 16 channels if the machine is slow",
        "stack_denoised.tif",
        "stack_denoised_model",
    ):
        assert words in said
    assert names(folder) == {"stack.tif"}


def test_axes_override_what_a_file_says_where_the_user_wants_it(folder, capsys):
    assert cli.main(["denoise", "stack.tif", "--axes", "ZYX", "--dry-run"]) == 1
    assert "--override-axes follows --axes" in capsys.readouterr().err
    assert cli.main(["denoise", "stack.tif", "--axes", "ZYX", "--override-axes", "--dry-run"]) == 0
    assert "reads stack.tif: ZYX 3 x 48 x 64" in capsys.readouterr().out


def test_a_dry_run_says_what_is_there(done, capsys):
    assert cli.main(["denoise", "stack.tif", *TIME, "--dry-run"]) == 0
    assert "nothing would be done" in capsys.readouterr().out
    assert cli.main(["denoise", "stack.tif", *TIME, "--seed", "1", "--dry-run"]) == 0
    assert "--overwrite replaces them" in capsys.readouterr().out


def test_a_dry_run_refuses_what_the_run_refuses(done, capsys):
    tifffile.imwrite("colours.tif", np.stack([images()[0]] * 3, -1), photometric="rgb")
    tifffile.imwrite("colours_b.tif", images()[0])
    with tifffile.TiffWriter("colours.ome.tif") as file:
        for name in "bc":
            file.write(images()[0], metadata={"axes": "YX", "Name": name})
    tifffile.imwrite("colours.ome_b.tif", images()[0])
    for arguments, words in [
        (["stack.tif", "--output", "stack.tif"], "found a file, allowed: a folder"),
        (["colours.tif", "--model", "stack_denoised_model"], "found 3 channels and 2 spatial axes"),
        (["colours.tif", "--start-from", "stack_denoised_model"], "found 3 channels and 2 spatial axes"),
        (["colours.ome.tif", "colours.ome_b.tif", "--series", "all"], "would be the result of two images"),
    ]:
        assert cli.main(["denoise", *arguments, "--dry-run"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line


def test_a_dry_run_lists_no_uncertainty_where_there_is_none(folder, capsys):
    assert cli.main(["denoise", "stack.tif", "--samples", "0", "--dry-run"]) == 0
    assert "uncertainty" not in capsys.readouterr().out


def test_a_folder_of_png_gives_a_folder_with_one_result_for_each(tmp_path, monkeypatch):
    import imageio.v3 as imageio

    (tmp_path / "scans").mkdir()
    for number, image in enumerate(images()):
        imageio.imwrite(tmp_path / "scans" / f"{number}.png", image)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["denoise", "scans", *TIME]) == 0
    assert names(tmp_path) == {"scans", "scans_denoised"}
    expected = {f"{number}_{kind}.tif" for number in range(FRAMES) for kind in ("denoised", "uncertainty")}
    assert names(tmp_path / "scans_denoised") == expected | {
        "scans_denoised.html", "scans_denoised.json", "scans_denoised_model"
    }  # fmt: skip
    assert tifffile.imread("scans_denoised/0_denoised.tif").shape == SHAPE


def test_several_files_share_a_model_and_a_pattern_does_not_match_the_results(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, image in enumerate(images()):
        tifffile.imwrite(f"scan_{number}.tif", image)
    assert cli.main(["denoise", "scan_*.tif", *TIME]) == 0
    assert (tmp_path / "scan_0_denoised_model").is_dir()
    assert len(list(tmp_path.glob("*_denoised.tif"))) == FRAMES
    capsys.readouterr()
    assert cli.main(["denoise", "scan_*.tif", *TIME]) == 0
    said = capsys.readouterr().err
    assert "leaves out results of earlier commands: scan_0_denoised.tif" in said and "all is there" in said


def test_all_results_go_where_output_says(folder):
    assert cli.main(["denoise", "stack.tif", *TIME, "--output", "results/today"]) == 0
    assert names(folder) == {"stack.tif", "results"}
    assert names(folder / "results" / "today") == RESULTS - {"stack.tif"}


def test_an_image_is_never_replaced(folder, capsys):
    (folder / "out").mkdir()
    tifffile.imwrite("out/stack_denoised.tif", images()[0])
    assert cli.main(["denoise", "stack.tif", "out/stack_denoised.tif", *TIME, "--output", "out"]) == 1
    assert "is an image to denoise and would be replaced" in capsys.readouterr().err


def test_an_image_with_the_name_of_a_result_is_no_result(folder, capsys):
    tifffile.imwrite("stack_denoised.tif", images()[0])
    before = (folder / "stack_denoised.tif").read_bytes()
    assert cli.main(["denoise", "stack_denoised.tif", "stack.tif", *TIME, "--overwrite"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "stack_denoised.tif: is an image to denoise and would be replaced" in line
    assert (folder / "stack_denoised.tif").read_bytes() == before


def test_planes_stay_planes_in_the_results(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    metadata = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite("stack.tif", images(), imagej=True, metadata=metadata, resolution=(4, 4))
    assert cli.main(["denoise", "stack.tif", *TIME]) == 0
    assert "3 planes of a volume are denoised as images" in capsys.readouterr().err
    (warning,) = [text for text in json.loads(Path("stack_denoised.json").read_text())["warnings"] if "planes" in text]
    page = Path("stack_denoised.html").read_text(encoding="utf-8")
    assert "planes of a volume are denoised as images" in page and warning not in page
    assert str(tmp_path / "stack_denoised_model") in page
    with tifffile.TiffFile("stack_denoised.tif") as file:
        assert file.is_imagej and file.series[0].axes == "ZYX"
        assert file.imagej_metadata["spacing"] == 2.0


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["missing.tif"], "no file matches 'missing.tif'"),
        (["stack.tif", "--minutes", "0"], "error: --minutes: found 0.0, allowed: a number above 0"),
        (["stack.tif", "--minutes", "nan"], "error: --minutes: found nan, allowed: a number above 0"),
        (["stack.tif", "--minutes", "inf"], "error: --minutes: found inf, allowed: a number above 0"),
        (["stack.tif", "--minutes", "1e9"], "found 1000000000.0, allowed: a number above 0 and up to 525600 (a year)"),
        (["stack.tif", "--samples", "-1"], "error: --samples: found -1, allowed: a whole number from 0"),
        (["stack.tif", "--receptive-field", "-4"], "error: --receptive-field: found -4, allowed: auto, or a number"),
        (["stack.tif", "--device", "mps"], "device: found 'mps'"),
        (["stack.tif", "--receptive-field", "41"], "receptive field 41 cannot be reached"),
        (["stack.tif", "--model", "missing"], "missing is not the folder of a trained model"),
        (["stack.tif", "--model", "stack.tif"], "stack.tif is not the folder of a trained model"),
        (["stack.tif", "--axes", "QQ"], "error: --axes: found 'QQ', allowed: auto"),
        (["stack.tif", "--axes", "CYX", "--override-axes", "--channel", "7"], "--channel: found 7"),
        (["stack.tif", "--noise-direction", "z"], "--noise-direction: found 'z'"),
        (["stack.tif", "--axes", "YX"], "--axes: found 'YX'"),
        (["stack.tif", "--axes", "ZYX"], "but the file says 'TYX', of shape (3, 48, 64); without --axes, the file is"),
        (["stack.tif", "--override-axes"], "--override-axes: found without --axes"),
        (["stack.tif", "--output", "stack.tif"], "stack.tif"),
        (
            ["stack.tif", "--noise-direction", "none", "--receptive-field", "8"],
            "--receptive-field: found 8, allowed: 0",
        ),
        (["stack.tif", "--rescale"], "--rescale: allowed only with --model"),
        (
            ["stack.tif", "--start-from", "stack_denoised_model", "--decoder", "best"],
            "--decoder: found best, allowed only without --start-from",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(folder, capsys, arguments, words):
    assert cli.main(["denoise", *arguments]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert words in line
    assert names(folder) == {"stack.tif"}


def test_the_better_of_two_decoders_is_kept(folder, capsys, monkeypatch):
    options = ["stack.tif", *TIME, "--decoder", "best"]
    assert cli.main(["denoise", *options, "--dry-run"]) == 0
    assert "trains two models, one with the nonlinear and one with the linear decoder" in capsys.readouterr().out
    train, compare = session.train, session.compare_models
    began, kinds = [], {}

    def only_the_first(patches, model, **how):
        began.append(how["settings"].model.autoregression)
        if len(began) == 2:
            raise KeyboardInterrupt
        train(patches, model, **how)

    monkeypatch.setattr(session, "train", only_the_first)
    assert cli.main(["denoise", *options]) == 130
    assert began == ["nonlinear", "linear"]

    def compared(images, models, **how):
        kinds.update({name: read_architecture(path).autoregression for name, path in models.items()})
        return compare(images, models, **how)

    monkeypatch.setattr(session, "train", train)
    monkeypatch.setattr(session, "compare_models", compared)
    assert cli.main(["denoise", *options]) == 0
    said = capsys.readouterr().err
    assert said.count("train: ") > 0 and kinds == {"nonlinear": "nonlinear", "linear": "linear"}
    kept = read_architecture(folder / "stack_denoised_model").autoregression
    assert f"rank: {kept}: the smallest estimated error" in said
    assert f"denoise: keeps the model with the {kept} decoder" in said
    assert names(folder) == RESULTS
    assert json.loads((folder / "stack_denoised.json").read_text())["request"]["decoder"] == "best"
    assert cli.main(["denoise", "stack.tif", *TIME]) == 1
    assert "was made by another command" in capsys.readouterr().err


def test_what_is_not_as_strong_as_the_noise_is_told_on_the_screen_and_in_the_results(folder, capsys, monkeypatch):
    monkeypatch.setattr(
        session, "measure", lambda *how: [Measurement("stack", "", noise=2.0, removed=3.0, correlation={})]
    )
    assert cli.main(["denoise", "stack.tif", *TIME]) == 0
    doubt = "what was removed is 1.50 times as strong as the noise: it may contain signal; look at noisy − denoised"
    assert f"denoise: WARNING: {doubt}" in capsys.readouterr().err
    assert f"denoise: WARNING: {doubt}" in json.loads((folder / "stack_denoised.json").read_text())["warnings"]
    assert doubt in (folder / "stack_denoised.html").read_text(encoding="utf-8")


def test_a_training_is_continued_with_the_decoder_of_its_model(folder, capsys):
    assert cli.main(["denoise", "stack.tif", *TIME, "--decoder", "linear"]) == 0
    tifffile.imwrite("other.tif", images(7), photometric="minisblack")
    assert cli.main(["denoise", "--start-from", "stack_denoised_model", "other.tif", *TIME]) == 0
    for name in ("stack", "other"):
        assert read_architecture(folder / f"{name}_denoised_model").autoregression == "linear"


def test_where_decoders_cannot_be_compared_one_has_all_of_the_time(folder, capsys):
    tifffile.imwrite("trace.tif", images()[0, 0], metadata={"axes": "X"})
    assert cli.main(["denoise", "trace.tif", *TIME, "--decoder", "best"]) == 0
    said = capsys.readouterr().err
    assert "decoders cannot be compared, and nonlinear is taken: rank: the noise cannot be told from the signal" in said
    assert read_architecture(folder / "trace_denoised_model").autoregression == "nonlinear"
    assert "smallest estimated error" not in said


def test_a_training_is_continued_on_other_images(done, capsys):
    tifffile.imwrite("other.tif", images(7), photometric="minisblack")
    assert cli.main(["denoise", "--start-from", "stack_denoised_model", "other.tif", *TIME]) == 0
    assert "continues" in capsys.readouterr().err
    old, new = (json.loads((done / f"{name}_denoised_model" / "model.json").read_text()) for name in ("stack", "other"))
    assert old["architecture"] == new["architecture"]
    assert old["weights_sha256"] != new["weights_sha256"]
    options = ["--start-from", "stack_denoised_model", "--noise-direction", "y"]
    assert cli.main(["denoise", "other.tif", *options]) == 1
    assert "--noise-direction: found y, allowed only without --start-from" in capsys.readouterr().err


def test_a_direct_denoiser_that_a_model_lacks_is_missed_at_once(done, capsys):
    tifffile.imwrite("other.tif", images(7)[0])
    assert cli.main(["denoise", "--model", "stack_denoised_model", "other.tif", "--samples", "0"]) == 1
    assert "no direct denoiser" in capsys.readouterr().err
    assert names(done) == RESULTS | {"other.tif"}


@pytest.mark.parametrize("options", [["--minutes", "3"], ["--quick"], ["--noise-direction", "x"]])
def test_options_of_the_training_are_refused_with_a_model(done, capsys, options):
    assert cli.main(["denoise", "--model", "stack_denoised_model", "stack.tif", *options]) == 1
    assert f"{options[0]}: " in capsys.readouterr().err
