import numpy as np
import pytest
import tifffile
import torch

import dvlae.inference.prediction
from dvlae.config.messages import validate
from dvlae.config.settings import PredictSettings
from dvlae.data.canonical import read_canonical
from dvlae.inference.prediction import predict
from dvlae.models.files import save_model
from dvlae.system.errors import UserError
from untrained import build, noisy


def predict_two(tmp_path, images_folder, **prediction):
    save_model(build(direct_denoiser="mean"), tmp_path)
    images = images_folder(**{"a b": noisy(20, 30), "c": noisy(16, 16)})
    settings = validate(PredictSettings, {"prediction": prediction, "device": "cpu"}, "test")
    folders = [tmp_path / name for name in ("denoised", "uncertainty", "samples")]
    predict(tmp_path, images, *folders, seed=0, settings=settings)
    return folders


def test_predict_writes_one_image_and_one_deviation_each(tmp_path, images_folder):
    denoised, uncertainty, samples = predict_two(tmp_path, images_folder, samples=2)
    for folder in (denoised, uncertainty):
        assert sorted(path.name for path in folder.iterdir()) == ["a b.tif", "c.tif"]
    assert read_canonical(denoised / "a b.tif").shape == (1, 20, 30)
    assert list(samples.iterdir()) == []


def test_predict_writes_the_first_samples_where_they_are_asked_for(tmp_path, images_folder):
    denoised, _, samples = predict_two(tmp_path, images_folder, samples=3, save_samples=3)
    written = tifffile.imread(samples / "a b.tif", squeeze=False)
    assert written.shape == (3, 1, 20, 30)
    np.testing.assert_allclose(written.mean(0), read_canonical(denoised / "a b.tif"), atol=1e-3)


def test_predict_writes_the_direct_estimate_and_no_deviation(tmp_path, images_folder):
    denoised, uncertainty, _ = predict_two(tmp_path, images_folder, estimator="direct")
    assert read_canonical(denoised / "a b.tif").shape == (1, 20, 30)
    assert list(uncertainty.iterdir()) == []


def test_predict_writes_the_median_and_leaves_no_scratch_file(tmp_path, images_folder):
    denoised, _, samples = predict_two(tmp_path, images_folder, samples=3, save_samples=3, estimator="median")
    assert sorted(path.name for path in denoised.iterdir()) == ["a b.tif", "c.tif"]
    written = tifffile.imread(samples / "a b.tif", squeeze=False)
    np.testing.assert_array_equal(read_canonical(denoised / "a b.tif"), np.median(written, axis=0))


@pytest.mark.parametrize(("samples", "denoised_again"), [(2, ["c"]), (3, ["a b", "c"])])
def test_an_interrupted_prediction_goes_on_after_the_last_image_unless_settings_changed(
    tmp_path, images_folder, monkeypatch, samples, denoised_again
):
    save_model(build(), tmp_path)
    images, names, usual = (
        images_folder(**{"a b": noisy(20, 30), "c": noisy(16, 16)}),
        [],
        dvlae.inference.prediction.denoise,
    )

    def start(samples, folder, fails_at=None):
        def denoise(*arguments, name, **keys):
            names.append(name)
            if name == fails_at:
                raise KeyboardInterrupt
            return usual(*arguments, name=name, **keys)

        monkeypatch.setattr(dvlae.inference.prediction, "denoise", denoise)
        settings = validate(PredictSettings, {"prediction": {"samples": samples}, "device": "cpu"}, "test")
        predict(tmp_path, images, folder / "d", folder / "u", seed=0, settings=settings)
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.tif")}

    with pytest.raises(KeyboardInterrupt):
        start(2, tmp_path / "run", fails_at="c")
    assert not (tmp_path / "run/d").exists()
    names.clear()
    resumed = start(samples, tmp_path / "run")
    assert names == denoised_again
    assert resumed == start(samples, tmp_path / "undisturbed")


@pytest.mark.skipif(torch.cuda.is_available(), reason="unavailable: a machine without a GPU")
def test_asking_for_a_gpu_where_none_is_leaves_nothing_behind(tmp_path, images_folder):
    save_model(build(), tmp_path)
    settings = validate(PredictSettings, {"device": "cuda"}, "test")
    with pytest.raises(UserError, match="device: found 'cuda'"):
        predict(tmp_path, images_folder(a=noisy(16, 16)), tmp_path / "d", tmp_path / "u", seed=0, settings=settings)
    assert not (tmp_path / "d").exists()
