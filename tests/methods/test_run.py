import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_noisy
from dvlae.data.manifest import read_manifest, write_manifest
from dvlae.data.outputs.folder import join_folders
from dvlae.data.outputs.reading import read_output
from dvlae.evaluation.evaluate import evaluate
from dvlae.methods.environments import download_code, make_environment
from dvlae.methods.run import run_method
from dvlae.methods.search import search_method
from dvlae.runs.folder import Run
from dvlae.runs.gather import gather
from dvlae.system.errors import UserError
from dvlae.system.parts import Part

SETTINGS = EvaluationSettings(data_range=1)
COPY = "cp {noisy}/*.tif {denoised}"
NOT_APPLICABLE = '; echo \'{"not_applicable": "needs volumes"}\' > {record}'
COMPLEX = (
    "for file in {noisy}/*.tif; do {python} -c 'import sys, tifffile; tifffile.imwrite(sys.argv[2], "
    'tifffile.imread(sys.argv[1]).astype("complex64"))\' "$file" {denoised}/"$(basename "$file")"; done'
)
FILTERS = ["noisy", "gaussian", "bm3d"]


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a method file, and returns its path."""

    def file(**keys):
        path = tmp_path / "a method/mine.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"description": "made up"} | keys))
        return str(path)

    return file


@pytest.fixture
def run(make_images, tmp_path):
    """Return a function that runs a method on images; it returns its record, and the folder of the estimates."""
    images = make_images()

    def run(method, **options):
        output = tmp_path / "run/denoised"
        run_method(method, images, output, settings=SETTINGS, cores=1, device="cpu", **options)
        return json.loads((tmp_path / "run/method.json").read_text()), output

    return run


@pytest.mark.parametrize("method", FILTERS)
@pytest.mark.usefixtures("weak_bm3d")
def test_every_filter_writes_an_estimate_of_each_image_in_its_shape(method, make_images, denoise):
    images = make_images()
    estimates = denoise(method, images)
    assert {name: e.shape for name, e in estimates.items()} == {i.name: i.shape for i in read_manifest(images)}
    files = ["the-noisy-images.txt"] if method == "noisy" else ["b 0.tif", "b 1.tif"]
    assert sorted(p.name for p in (images.parent / "run" / "denoised").iterdir()) == files


@pytest.mark.parametrize("method", FILTERS)
@pytest.mark.usefixtures("weak_bm3d")
def test_any_number_of_parts_gives_the_same_bytes_and_parameters(method, make_images, tmp_path):
    images = make_images()
    run_method(method, images, tmp_path / "whole/denoised", settings=SETTINGS)
    parts = [tmp_path / f"{number}-of-3" for number in range(1, 4)]
    for folder in parts:
        run_method(method, images, folder / "denoised", settings=SETTINGS, part=Part.parse(folder.name))
    gather(parts, [tmp_path / "joined/denoised", tmp_path / "joined/method.json"], join_folders)
    whole, joined = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "denoised").iterdir()}
        for name in ("whole", "joined")
    )
    assert whole == joined
    records = [json.loads((tmp_path / name / "method.json").read_text()) for name in ("whole", "joined")]
    times = ("seconds", "training_seconds", "prediction_seconds", "prediction_processor_seconds")
    measured = dict.fromkeys((*times, "peak_memory_mb", "workers"), 0)
    assert records[0] | measured == records[1] | measured


def test_a_command_reads_float32_images_and_writes_estimates_in_their_units(write, run, make_images):
    record, denoised = run(write(command=COPY, licence="MIT", sees="noisy"))
    assert (record["status"], record["reason"], record["licence"], record["seed"]) == ("done", None, "MIT", None)
    for image in read_manifest(denoised.parents[1] / "images"):
        np.testing.assert_array_equal(read_output(denoised, image), read_noisy(image))
    assert record["megapixels"] == pytest.approx(60 * (50 + 51) / 1e6, rel=0.02)
    assert not list(denoised.parent.glob(".unfinished*"))


def test_a_command_is_told_all_that_it_may_use(write, run, tmp_path, caplog):
    script = (
        "import json, sys; given = json.load(open(sys.argv[1])); "
        "json.dump({'images': 1, 'told': sys.argv[3:], **given}, open(sys.argv[2], 'w'))"
    )
    noise = tmp_path / "noise.json"
    noise.write_text('{"receptive_field": 8}')
    places = "{settings} {record} {seed} {minutes} {threads} {device} {here}"
    method = write(
        command=COPY + f' && {{python}} -c "{script}" {places}', settings={"width": 3}, trains=True, seeds=True
    )
    record, _ = run(method, noise=noise, noise_direction="x", seed=5, minutes=1.5)
    chosen = record["chosen"]
    assert chosen["told"] == ["5", "1.5", "1", "cpu", str(tmp_path / "a method")]
    assert (chosen["width"], chosen["noise_direction"], chosen["receptive_field"]) == (3, "x", 8)
    assert chosen["noise"] == {"receptive_field": 8}
    assert (record["trained_on"], record["minutes"], record["seed"]) == (1, 1.5, 5)
    assert record["processor_share"] > 0 and record["peak_memory_mb"] > 10
    # What is run is shown before it runs.
    assert "runs cp " in caplog.text


@pytest.mark.parametrize(("keys", "status", "reason"), [
    ({"command": COPY + "; exit 3"}, "failed", "the command ended with exit status 3"),
    ({"command": "echo {noisy} {denoised}"}, "failed", "the command wrote no b 0.tif, but nothing"),
    ({"command": "echo x > {denoised}/'b 0.tif'; : {noisy}"}, "failed", "that cannot be read"),
    ({"command": "cp {noisy}/'b 1.tif' {denoised}/'b 0.tif'"}, "failed", "of shape .* allowed"),
    ({"command": COPY + NOT_APPLICABLE}, "not applicable", "^needs volumes$"),
    ({"command": COPY + "; echo [] > {record}"}, "failed", "is not JSON"),
    ({"command": COPY + "; sleep 99", "prediction_minutes": 0.005}, "out of time", "ended after 0.005 minutes"),
    ({"unavailable": "no package has it"}, "unavailable", "^no package has it$"),
    ({"command": COPY, "device": "cuda"}, "not applicable", "is run on a GPU only, and the device is cpu"),
    ({"command": COMPLEX}, "failed", "with values of the type complex64, allowed: real numbers"),
    ({"function": "filters.bm3d", "settings": {"noise": "pink"}}, "failed", "."),
])  # fmt: skip
def test_a_method_without_estimates_has_a_status_and_a_reason(write, run, keys, status, reason):
    record, denoised = run(write(**keys))
    assert record["status"] == status
    assert re.search(reason, record["reason"]), record["reason"]
    assert denoised.is_dir() and not list(denoised.iterdir())


def test_a_command_that_sees_clean_images_needs_one(write, run, tmp_path):
    folder = tmp_path / "images"
    write_manifest(folder, [replace(image, clean=None) for image in read_manifest(folder)])
    record, _ = run(write(command=COPY + "; ls {clean}", sees="clean"))
    assert (record["status"], record["reason"]) == ("not applicable", "it sees clean images, and there are none")


def test_a_command_that_is_too_slow_is_ended_with_all_that_it_started(write, run, tmp_path):
    pids = tmp_path / "pids"
    line = f"(sleep 98 & echo $! >> {pids}; setsid sleep 99 & echo $! >> {pids}; wait) # {{noisy}} {{denoised}}"
    start = time.monotonic()
    record, _ = run(write(command=line, prediction_minutes=0.02))
    assert record["status"] == "out of time" and time.monotonic() - start < 30
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 2 and not any(psutil.pid_exists(pid) for pid in started)


def test_the_measurement_of_a_method_without_estimates_is_a_row_of_blanks_beside_the_noisy_psnr(write, run, tmp_path):
    _, denoised = run(write(unavailable="no package has it"))
    evaluate(
        tmp_path / "images", denoised, tmp_path / "run/psnr.csv",
        dataset="small", method="mine", receptive_field=None, seed=0, settings=SETTINGS,
    )  # fmt: skip
    found = Run.read(tmp_path / "run/psnr.csv")
    assert found.status == "unavailable"
    assert found.psnr.psnr.isna().all() and found.psnr.psnr_noisy.notna().all()


def test_the_candidate_with_the_smallest_validation_loss_is_taken(write, make_images, run, tmp_path):
    script = (
        "import json, sys; width = json.load(open(sys.argv[1]))['width']; "
        "json.dump({'validation_loss': abs(width - 2)} if width < 4 else {}, open(sys.argv[2], 'w'))"
    )
    method = write(
        command=COPY + f' && {{python}} -c "{script}" {{settings}} {{record}} # {{minutes}}',
        trains=True, settings={"depth": 1}, candidates=[{"width": 1}, {"width": 2}, {"width": 4}],
    )  # fmt: skip
    search_method(method, tmp_path / "images", tmp_path / "search.json", settings=SETTINGS, minutes=10, device="cpu")
    found = json.loads((tmp_path / "search.json").read_text())
    assert [row["validation_loss"] for row in found["candidates"]] == [1, 0, None]
    assert found["candidates"][2]["reason"] == "it has no validation loss"
    assert found["chosen"] == {"width": 2}
    record, _ = run(method, search=tmp_path / "search.json", minutes=10)
    assert (record["settings"], record["searched"]) == ({"depth": 1, "width": 2}, 3)


def test_a_method_has_an_environment_of_its_own(write, run, tmp_path):
    requirements = tmp_path / "a method/r.txt"
    requirements.parent.mkdir()
    requirements.write_text("")
    method = write(
        command=COPY + """ && {python} -c 'import json, sys; print(json.dumps({"prefix": sys.prefix}))' > {record}""",
        environment="r.txt",
    )
    make_environment(requirements, tmp_path / "data/environments/mine.json")
    made = json.loads((tmp_path / "data/environments/mine.json").read_text())
    assert made["reason"] is None and made["seconds"] > 0 and made["megabytes"] > 1
    record, _ = run(method, environment=tmp_path / "data/environments/mine.json")
    assert record["chosen"]["prefix"] == str(tmp_path / "data/environments/mine")


def test_what_cannot_be_made_for_a_method_is_the_reason_of_its_row(write, run, tmp_path):
    method = write(command=COPY, environment="r.txt")
    requirements = tmp_path / "a method/r.txt"
    requirements.write_text("./no-such-package\n")
    make_environment(requirements, tmp_path / "mine.json")
    record, _ = run(method, environment=tmp_path / "mine.json")
    assert record["status"] == "failed"
    assert record["reason"].startswith("environment: pip could not install r.txt: ERROR:")
    with pytest.raises(UserError, match=r"mine\.json: no such file|not the record"):
        run(method, environment=tmp_path / "other.json")


def test_files_of_a_method_come_from_a_mirror(write, run, tmp_path, monkeypatch):
    monkeypatch.setenv("DVLAE_DATA_MIRROR", str(tmp_path / "mirror"))
    (tmp_path / "mirror/theirs").mkdir(parents=True)
    (tmp_path / "mirror/theirs/code.py").write_text("import sys; print(sys.argv[1])")
    method = write(command=COPY + """ && {python} {code}/code.py '{"from": "them"}' > {record}""", files="files.csv")
    registry = tmp_path / "a method/files.csv"
    registry.write_text("file,sha256,url\ntheirs/code.py,,http://127.0.0.1:1/code.py\n")
    download_code(registry, tmp_path / "data", tmp_path / "data/methods/mine.json")
    record, _ = run(method, code=tmp_path / "data/methods/mine.json")
    assert record["chosen"] == {"from": "them"}


@pytest.mark.parametrize(("keys", "options", "said"), [
    ({"dvlae": {"receptive_field": 4}}, {}, "is our own network, allowed: other methods"),
    ({"command": COPY, "trains": True}, {}, "--minutes: found none, but mine trains for a time"),
    ({"command": COPY}, {"minutes": float("nan")}, "--minutes: found nan"),
    ({"command": COPY}, {"part": Part(1, 2)}, "--part: found 1/2, allowed: 1/1, as mine cannot be divided"),
    ({"command": COPY}, {"noise": "no.json"}, "no.json: no such file"),
])  # fmt: skip
def test_what_cannot_be_run_is_refused(write, run, keys, options, said):
    if "noise" in options:
        options = {"noise": Path(options["noise"])}
    with pytest.raises(UserError, match=said):
        run(write(**keys), **options)
