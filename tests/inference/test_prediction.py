import json
import time
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import tifffile
import torch

import dvlae.inference.posterior
import dvlae.inference.prediction
import dvlae.inference.samples
from dvlae.config.messages import validate
from dvlae.config.settings import PredictionSettings, PredictSettings
from dvlae.data.canonical import write_frames
from dvlae.data.defects.denoising import FramesToDenoise
from dvlae.data.manifest import Image, write_manifest
from dvlae.data.outputs.folder import OutputFolder, join_folders
from dvlae.data.sources import SourceInfo
from dvlae.inference.estimates import denoise
from dvlae.inference.prediction import predict
from dvlae.models.files import save_model
from dvlae.runs.gather import gather
from dvlae.system.errors import UserError
from dvlae.system.hardware.devices import use_one_thread
from dvlae.system.parts import WHOLE, Part
from untrained import build, noisy


def predict_two(tmp_path, images_folder, denoiser="mean", **prediction):
    save_model(build(direct_denoiser=denoiser), tmp_path)
    images = images_folder(**{"a b": noisy(20, 30), "c": noisy(16, 16)})
    settings = validate(PredictSettings, {"prediction": prediction, "device": "cpu"}, "test")
    folders = [tmp_path / name for name in ("denoised", "uncertainty", "samples")]
    predict(tmp_path, images, *folders, seed=0, settings=settings)
    return folders


@pytest.mark.parametrize(
    ("history", "precision"),
    [
        (None, "32"),
        ("step,val_mse\n", "32"),
        ("step,val_mse\n1,0.5\n2,0.04\n", "32"),
        ("step,val_mse\n2,0.5\n", "bf16"),
    ],
)
def test_the_history_of_the_model_tells_how_strong_the_noise_is(
    tmp_path, images_folder, monkeypatch, history, precision
):
    monkeypatch.setattr(dvlae.inference.samples, "has_fast_bfloat16", lambda device: True)
    if history is not None:
        (tmp_path / "history.csv").write_text(history)
    predict_two(tmp_path, images_folder, samples=1)
    assert json.loads((tmp_path / "prediction.json").read_text())["precision"] == precision


def test_predict_writes_one_image_and_one_deviation_each(tmp_path, images_folder):
    denoised, uncertainty, samples = predict_two(tmp_path, images_folder, samples=2)
    for folder in (denoised, uncertainty):
        assert sorted(path.name for path in folder.iterdir()) == ["a b.tif", "c.tif"]
    assert tifffile.imread(denoised / "a b.tif").shape == (20, 30)
    assert list(samples.iterdir()) == []


@pytest.mark.parametrize("estimator", ["mmse", "refined"])
def test_a_model_that_gives_no_numbers_is_refused(tmp_path, images_folder, monkeypatch, estimator):
    damaged = build(direct_denoiser="refined")
    damaged.std.fill_(float("inf"))
    monkeypatch.setitem(globals(), "build", lambda **_: damaged)
    with pytest.raises(UserError, match=r"found values that are not finite in its estimate of a b, so its weights"):
        predict_two(tmp_path, images_folder, samples=2, estimator=estimator)
    assert not (tmp_path / "denoised").exists() and not (tmp_path / "prediction.json").exists()


def test_predict_writes_the_first_samples_where_they_are_asked_for(tmp_path, images_folder):
    denoised, _, samples = predict_two(tmp_path, images_folder, samples=3, save_samples=3)
    written = tifffile.imread(samples / "a b.tif")
    assert written.shape == (3, 20, 30)
    np.testing.assert_allclose(written.mean(0), tifffile.imread(denoised / "a b.tif"), atol=1e-3)


def test_predict_writes_the_direct_estimate_and_no_deviation(tmp_path, images_folder):
    denoised, uncertainty, _ = predict_two(tmp_path, images_folder, estimator="direct")
    assert tifffile.imread(denoised / "a b.tif").shape == (20, 30)
    assert list(uncertainty.iterdir()) == []


def test_a_refined_estimate_has_the_deviation_of_samples(tmp_path, images_folder):
    found = {}
    for estimator, others in (("mmse", {"save_samples": 2}), ("direct", {}), ("refined", {"save_samples": 2})):
        (tmp_path / estimator).mkdir()
        folders = predict_two(tmp_path / estimator, images_folder, "refined", estimator=estimator, samples=4, **others)
        found[estimator] = [
            {path.name: path.read_bytes() for path in folder.glob("*.tif")} if folder.exists() else {}
            for folder in folders
        ]
    assert [len(files) for files in found["refined"]] == [2, 2, 2]
    assert found["refined"] == [found["direct"][0], *found["mmse"][1:]]
    assert found["direct"][0] != found["mmse"][0]


def test_the_progress_of_a_refined_estimate_ends_with_its_passes_and_samples(tmp_path, images_folder, monkeypatch):
    bar = MagicMock()
    monkeypatch.setattr(dvlae.inference.prediction, "progress", bar)
    predict_two(tmp_path, images_folder, "refined", estimator="refined", samples=3)
    done = sum(call.args[0] for call in bar.return_value.__enter__.return_value.update.call_args_list)
    assert done == bar.call_args.kwargs["total"] > 3 * (20 * 30 + 16 * 16)


def test_only_a_refined_denoiser_makes_refined_estimates(tmp_path, images_folder):
    with pytest.raises(UserError, match="found 'refined', but the model was trained with direct_denoiser: mean"):
        predict_two(tmp_path, images_folder, estimator="refined")
    assert not (tmp_path / "denoised").exists()


@pytest.mark.parametrize("estimator", ["direct", "refined"])
def test_samples_denoise_where_the_training_left_the_refined_denoiser_out(tmp_path, images_folder, caplog, estimator):
    found = {}
    for name in ("mmse", estimator):
        (tmp_path / name).mkdir()
        (tmp_path / name / "refinement.csv").write_text("step,val_error\n1,-0.5\n")
        folders = predict_two(tmp_path / name, images_folder, None, estimator=name, samples=2)
        found[name] = [{path.name: path.read_bytes() for path in folder.glob("*.tif")} for folder in folders[:2]]
    assert found[estimator] == found["mmse"] and len(found["mmse"][1]) == 2
    assert caplog.text.count("WARNING: samples denoise, as the training has left the refined denoiser out") == 1
    record = json.loads((tmp_path / estimator / "prediction.json").read_text())
    assert (record["settings"]["estimator"], record["estimator"]) == (estimator, "mmse")


def test_predict_writes_the_median_and_leaves_no_scratch_file(tmp_path, images_folder):
    denoised, _, samples = predict_two(tmp_path, images_folder, samples=3, save_samples=3, estimator="median")
    assert sorted(path.name for path in denoised.iterdir()) == ["a b.tif", "c.tif"]
    written = tifffile.imread(samples / "a b.tif")
    np.testing.assert_array_equal(tifffile.imread(denoised / "a b.tif"), np.median(written, axis=0))


@pytest.mark.parametrize("cores", [(1, 1), (3, 2)])
@pytest.mark.parametrize(("samples", "denoised_again"), [(2, ["c"]), (3, ["a b", "c"])])
def test_an_interrupted_prediction_goes_on_after_the_last_image_unless_settings_changed(
    tmp_path, images_folder, monkeypatch, samples, denoised_again, cores
):
    monkeypatch.setattr(dvlae.inference.prediction, "choose_workers", lambda *_, cores, memory: cores)
    save_model(build(), tmp_path)
    images, names = images_folder(**{"a b": noisy(20, 30), "c": noisy(16, 16)}), []

    def start(samples, folder, cores, fails_at=None):
        class Watched(OutputFolder):
            def write(self, image, values):
                if image.name == fails_at:
                    raise KeyboardInterrupt
                super().write(image, values)
                if self.folder.name == ".unfinished-d":
                    names.append(image.name)

        monkeypatch.setattr(dvlae.inference.prediction, "OutputFolder", Watched)
        settings = validate(PredictSettings, {"prediction": {"samples": samples}, "device": "cpu"}, "test")
        predict(tmp_path, images, folder / "d", folder / "u", seed=0, settings=settings, cores=cores)
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.tif")}

    with pytest.raises(KeyboardInterrupt):
        start(2, tmp_path / "run", cores[0], fails_at="c")
    assert not (tmp_path / "run/d").exists()
    names.clear()
    resumed = start(samples, tmp_path / "run", cores[1])
    assert names == denoised_again
    assert resumed == start(samples, tmp_path / "undisturbed", 1)


@pytest.mark.parametrize("how", [
    {"samples": 5, "save_samples": 3}, {"samples": 5, "estimator": "median"}, {"estimator": "direct"},
    {"samples": 20, "tile": 16}, {"estimator": "direct", "tile": 16}, {"estimator": "refined", "tile": 16},
    {"samples": 4, "tile": 16, "flips": False, "shifts": 1, "batch_size": 1},
])  # fmt: skip
def test_any_number_of_workers_gives_the_same_bytes(tmp_path, images_folder, monkeypatch, how):
    monkeypatch.setattr(dvlae.inference.prediction, "choose_workers", lambda *_, cores, memory: cores)
    monkeypatch.setattr(dvlae.inference.posterior, "MAX_COARSE_TILES", 0.3)  # The coarse levels run first.
    save_model(build(direct_denoiser="refined" if how.get("estimator") == "refined" else "mean"), tmp_path)
    images = images_folder(**{f"{side}": noisy(side, 70 - side) for side in (20, 50, 33, 16, 65)})
    settings = validate(PredictSettings, {"prediction": how, "device": "cpu"}, "test")
    found = []
    for cores in (1, 2, 3):
        folder = tmp_path / str(cores)
        samples = folder / "s" if "save_samples" in how else None
        predict(tmp_path, images, folder / "d", folder / "u", samples, seed=0, settings=settings, cores=cores)
        found.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.tif")})
    assert len(found[0]) >= 5
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("how", [{"samples": 5, "save_samples": 3}, {"estimator": "direct"}])
def test_any_number_of_parts_gives_the_same_bytes(tmp_path, images_folder, how, count):
    save_model(build(direct_denoiser="mean"), tmp_path)
    images = images_folder(**{f"{side}": noisy(side, 70 - side) for side in (20, 50, 33)})
    settings = validate(PredictSettings, {"prediction": how, "device": "cpu"}, "test")
    names = ["denoised", "uncertainty", *(["samples"] if "save_samples" in how else [])]

    def start(folder, part=WHOLE):
        folders = [folder / name for name in names]
        predict(tmp_path, images, *folders, seed=0, settings=settings, part=part)

    start(tmp_path / "whole")
    parts = [tmp_path / f"{number}-of-{count}" for number in range(1, count + 1)]
    for folder in parts:
        start(folder, Part.parse(folder.name))
    gather(parts, [tmp_path / "joined" / name for name in [*names, "prediction.json"]], join_folders)
    whole, joined = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.tif")}
        for folder in (tmp_path / "whole", tmp_path / "joined")
    )
    assert whole == joined and len(whole) >= 3
    records = [json.loads((tmp_path / name / "prediction.json").read_text()) for name in ("whole", "joined")]
    measured = {"seconds": 0, "processor_seconds": 0, "peak_memory_mb": 0}
    assert records[0] | measured == records[1] | measured


def test_what_is_left_of_another_part_is_not_continued(tmp_path, images_folder, monkeypatch):
    save_model(build(), tmp_path)
    images = images_folder(**{name: noisy(16, 16) for name in "abcd"})
    settings = validate(PredictSettings, {"prediction": {"samples": 1}, "device": "cpu"}, "test")

    def start(part):
        predict(tmp_path, images, tmp_path / "d", tmp_path / "u", seed=0, settings=settings, part=Part.parse(part))

    class Interrupted(OutputFolder):
        def write(self, image, values):
            if image.name == "b":
                raise KeyboardInterrupt
            super().write(image, values)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dvlae.inference.prediction, "OutputFolder", Interrupted)
        start("1/2")
    assert [path.name for path in (tmp_path / ".unfinished-d").glob("*.tif")] == ["a.tif"]
    start("2/2")
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["c.tif", "d.tif"]


@pytest.fixture
def stacks(tmp_path):
    """Return a folder with a stack of five frames and a single image, and a model that denoises them."""
    save_model(build(), tmp_path)
    folder, rows = tmp_path / "images", []
    for name, count in (("movie", 5), ("one", 1)):
        info = SourceInfo.of_frames((1, 20, 30), count, "uint16")
        frames = [noisy(20, 30) + number for number in range(count)]
        frames[0][0, 9, 12] = 4000  # hot
        write_frames(folder / f"{name}.tif", info, frames, np.dtype(np.uint16))
        for number in range(count):
            image = Image(f"{name}_{number}", folder / f"{name}.tif", None, info.frame_shape, frame=number)
            rows.append(image)
    write_manifest(folder, rows)
    return folder


def predict_stacks(tmp_path, folder, part=None, samples="samples", **prediction):
    options = {"samples": 2, "save_samples": 2} | prediction
    settings = validate(PredictSettings, {"prediction": options, "device": "cpu"}, "test")
    part = WHOLE if part is None else Part.parse(part)
    folders = [folder / name for name in ("denoised", "uncertainty", samples)]
    predict(tmp_path, tmp_path / "images", *folders, seed=0, settings=settings, part=part)
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.tif")}


@pytest.mark.usefixtures("stacks")
@pytest.mark.parametrize("last", range(6))
def test_an_interrupted_prediction_of_a_stack_goes_on_after_the_last_frame(tmp_path, monkeypatch, last):
    computed = []

    class Interrupted(OutputFolder):
        def write(self, image, values):
            if len(computed) == last and self.folder.name == ".unfinished-denoised":
                raise KeyboardInterrupt
            super().write(image, values)
            if self.folder.name == ".unfinished-denoised":
                computed.append(image.name)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dvlae.inference.prediction, "OutputFolder", Interrupted)
        predict_stacks(tmp_path, tmp_path / "run")
    assert not (tmp_path / "run/denoised").exists()
    taken, take = [], FramesToDenoise.take
    with monkeypatch.context() as patch:
        patch.setattr(FramesToDenoise, "take", lambda self, image: taken.append(image.name) or take(self, image))
        resumed = predict_stacks(tmp_path, tmp_path / "run")
    assert len(taken) == 6 - last
    assert resumed == predict_stacks(tmp_path, tmp_path / "whole")
    found, whole = (json.loads((tmp_path / name / "prediction.json").read_text())["found"] for name in ("run", "whole"))
    assert found == whole and list(found["hot_pixels"].values()) == [1, 1]
    denoised = tifffile.imread(tmp_path / "run/denoised/movie.tif")
    samples = tifffile.imread(tmp_path / "run/samples/movie.tif")
    assert (denoised.shape, samples.shape) == ((5, 20, 30), (2, 5, 20, 30))
    np.testing.assert_allclose(samples.mean(axis=0), denoised, atol=1e-3)


@pytest.mark.usefixtures("stacks")
def test_samples_that_are_asked_for_elsewhere_after_an_interruption_are_all_there(tmp_path, monkeypatch):
    class Interrupted(OutputFolder):
        def write(self, image, values):
            if image.name == "movie_3":
                raise KeyboardInterrupt
            super().write(image, values)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dvlae.inference.prediction, "OutputFolder", Interrupted)
        predict_stacks(tmp_path, tmp_path / "run")
    predict_stacks(tmp_path, tmp_path / "run", samples="others")
    denoised, samples = (tifffile.imread(tmp_path / "run" / name / "movie.tif") for name in ("denoised", "others"))
    np.testing.assert_allclose(samples.mean(axis=0), denoised, atol=1e-3)


@pytest.mark.usefixtures("stacks")
@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("output", [{}, {"dtype": "same", "compression": "zlib"}])
def test_parts_of_a_stack_become_the_same_file_as_without_parts(tmp_path, count, output):
    parts = [tmp_path / f"{number}-of-{count}" for number in range(1, count + 1)]
    for part in parts:
        predict_stacks(tmp_path, part, part.name, output=output)
    gather(parts, [tmp_path / "joined" / name for name in ("denoised", "uncertainty", "samples")], join_folders)
    joined = {path.relative_to(tmp_path / "joined"): path.read_bytes() for path in tmp_path.glob("joined/*/*.tif")}
    assert joined == predict_stacks(tmp_path, tmp_path / "whole", output=output)
    assert len(joined) == 6
    assert tifffile.imread(tmp_path / "joined/samples/movie.tif").dtype == np.float32


@pytest.mark.parametrize("dimensions", [1, 3])
def test_any_number_of_workers_gives_the_same_traces_and_volumes(monkeypatch, dimensions):
    monkeypatch.setattr(dvlae.inference.posterior, "MAX_COARSE_TILES", 0.2)
    model, image = build(dimensions=dimensions), noisy(*[40] * dimensions)
    settings = PredictionSettings(samples=6, tile=16)
    one, three = (denoise(model, image, name="a", seed=0, settings=settings, workers=n) for n in (1, 3))
    for first, second in zip(one, three, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="unavailable: a system that lists threads")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_starts_no_threads_of_its_own(workers):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)  # as an environment may ask for
        use_one_thread()
        before = {task.name for task in Path("/proc/self/task").iterdir()}
        denoise(build(), noisy(300, 300), name="a", seed=0, settings=PredictionSettings(samples=4), workers=workers)
        # Those of OpenMP would stay. The system lists a thread for a moment after it was joined.
        end = time.monotonic() + 10
        while not (after := {task.name for task in Path("/proc/self/task").iterdir()}) <= before:
            assert time.monotonic() < end, after - before
            time.sleep(0.01)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(torch.cuda.is_available(), reason="unavailable: a machine without a GPU")
def test_asking_for_a_gpu_where_none_is_leaves_nothing_behind(tmp_path, images_folder):
    save_model(build(), tmp_path)
    settings = validate(PredictSettings, {"device": "cuda"}, "test")
    with pytest.raises(UserError, match="device: found 'cuda'"):
        predict(tmp_path, images_folder(a=noisy(16, 16)), tmp_path / "d", tmp_path / "u", seed=0, settings=settings)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("dimensions", [1, 3])
def test_images_with_other_axes_than_the_model_are_refused_by_name(tmp_path, images_folder, dimensions):
    save_model(build(dimensions=dimensions), tmp_path)
    images = images_folder(**{"a b": noisy(20, 30)})
    settings = validate(PredictSettings, {"device": "cpu"}, "test")
    with pytest.raises(
        UserError, match=f"^a b: found 1 channel and 2 spatial axes.* on 1 channel and {dimensions} spatial ax[ie]s$"
    ):
        predict(tmp_path, images, tmp_path / "denoised", tmp_path / "uncertainty", seed=0, settings=settings)
    assert not (tmp_path / "denoised").exists()
