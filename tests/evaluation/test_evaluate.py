import json

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_clean, write_image
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.data.outputs.folder import join_folders
from dvlae.evaluation.evaluate import evaluate
from dvlae.evaluation.register import register
from dvlae.runs.folder import MEASURE_COLUMNS, PSNR_COLUMNS
from dvlae.runs.gather import gather
from dvlae.system.errors import UserError
from dvlae.system.hashes import sha256
from dvlae.system.parts import Part

RUN = {"dataset": "made up", "method": "dvlae-rf4", "receptive_field": 4, "seed": 1}


@pytest.fixture
def images(tmp_path):
    """Three images of two channels; the second has no clean one."""
    random = np.random.default_rng(0)
    folder, rows = tmp_path / "images", []
    for i in range(3):
        clean = 100 + 20 * ndimage.gaussian_filter(random.normal(size=(2, 30, 40 + i)), (0, 2, 2))
        image = Image(f"a {i}", folder / f"noisy/a {i}.tif", None if i == 1 else folder / f"clean/{i}.tif", clean.shape)
        write_image(image.noisy, clean + random.normal(size=clean.shape))
        if image.clean:
            write_image(image.clean, clean)
        write_image(tmp_path / "denoised" / f"{image.name}.tif", clean + 0.1 * random.normal(size=clean.shape))
        rows.append(image)
    write_manifest(folder, rows)
    return folder


def run(images, settings=None, output="psnr.csv", **changes):
    path = images.parent / output
    settings = settings or EvaluationSettings(data_range=10)
    evaluate(images, images.parent / "denoised", path, settings=settings, **(RUN | changes))
    return path


def read_record(images):
    return json.loads((images.parent / "evaluation.json").read_text())


def test_the_table_has_a_row_for_each_image(images):
    table = pd.read_csv(run(images))
    assert tuple(table.columns) == (*PSNR_COLUMNS, *MEASURE_COLUMNS)
    assert table.image.tolist() == ["a 0", "a 1", "a 2"]
    assert table[["dataset", "method", "receptive_field", "seed"]].drop_duplicates().values.tolist() == [
        ["made up", "dvlae-rf4", 4, 1]
    ]


def test_psnr_is_that_of_the_error_over_all_channels(images):
    table = pd.read_csv(run(images)).iloc[0]
    assert table.psnr == pytest.approx(40, abs=0.3)  # error 0.1, range 10
    assert table.psnr_noisy == pytest.approx(20, abs=0.3)
    assert 0.9 < table.ssim <= 1


def test_an_image_without_a_clean_one_has_empty_fields(images):
    assert run(images).read_text().splitlines()[2] == "made up,dvlae-rf4,4,1,a 1" + 9 * ","


def test_the_measures_say_what_was_done_to_the_images(images):
    first = pd.read_csv(run(images)).iloc[0]
    # The clean image has no noise, and the estimate has a tenth of that of the noisy one, and all details.
    assert first.psnr_limit > first.psnr_noisy + 20
    assert first.psnr_limit == pytest.approx(20 * np.log10(10 / first.reference_noise), abs=1e-3)
    assert first.si_psnr == pytest.approx(20 * np.log10(clean_range(images) / 0.1), abs=0.3)
    assert first.kept_band > 0.25
    assert abs(first.removed_details) < 0.1


@pytest.mark.parametrize("with_table", [True, False])
def test_clean_images_without_noise_limit_nothing(images, with_table):
    settings, table = EvaluationSettings(data_range=10, noise_free=True), images.parent / "targets.csv"
    if with_table:
        register(images, table, settings=settings)
    measured = pd.read_csv(run(images, settings, targets=table if with_table else None))
    assert measured[["reference_noise", "psnr_limit"]].isna().all(axis=None)
    assert measured.psnr.notna().tolist() == [True, False, True]


def clean_range(images):
    clean = read_clean(read_manifest(images)[0])
    return np.exp(np.log(np.ptp(clean, axis=(1, 2))).mean())


def test_an_image_that_is_too_small_for_the_ms_ssim_has_an_empty_field_and_the_log_the_reason(images, caplog):
    caplog.set_level("INFO", "dvlae")
    assert pd.read_csv(run(images)).ms_ssim.isna().all()
    assert "dvlae-rf4: no MS-SSIM of 2 images: it needs 176 pixels along x and y, and no mask" in caplog.text


def test_a_method_without_a_receptive_field_leaves_it_empty(images):
    assert run(images, method="noisy", receptive_field=None).read_text().splitlines()[1].startswith("made up,noisy,,1,")


def test_only_the_chosen_images_are_evaluated(images):
    settings = EvaluationSettings(images="1:", data_range=10)
    assert pd.read_csv(run(images, settings)).image.tolist() == ["a 1", "a 2"]


def test_equal_images_give_equal_bytes(images):
    assert run(images).read_bytes() == run(images, output="again.csv").read_bytes()


def test_a_table_of_targets_changes_no_number_and_its_hash_is_recorded(images):
    settings = EvaluationSettings(register=True, fit="clean_to_noisy")
    without = run(images, settings, targets=None).read_bytes()
    assert read_record(images)["targets_sha256"] is None
    table = images.parent / "targets.csv"
    register(images, table, settings=settings)
    assert run(images, settings, targets=table).read_bytes() == without
    assert read_record(images)["targets_sha256"] == sha256(table)


def test_a_missing_estimate_is_named_and_no_table_is_left(images):
    (images.parent / "denoised" / "a 2.tif").unlink()
    with pytest.raises(UserError, match=r"a 2\.tif: not found"):
        run(images)
    assert not (images.parent / "psnr.csv").exists()


def test_an_estimate_of_another_shape_is_refused(images):
    write_image(images.parent / "denoised" / "a 0.tif", np.ones((2, 30, 39)))
    with pytest.raises(UserError, match=r"\(2, 30, 39\).*\(2, 30, 40\)"):
        run(images)


def test_an_estimate_that_is_not_finite_is_refused(images):
    write_image(images.parent / "denoised" / "a 0.tif", np.full((2, 30, 40), np.nan))
    with pytest.raises(UserError, match="NaN"):
        run(images)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_any_number_of_parts_gives_the_same_table_and_record(images, tmp_path, count):
    settings = EvaluationSettings(data_range=10, images="1:")
    whole = [run(images, settings).read_bytes(), read_record(images)]
    parts = [tmp_path / f"{number}-of-{count}" for number in range(1, count + 1)]
    for folder in parts:
        run(images, settings, output=f"{folder.name}/psnr.csv", part=Part.parse(folder.name))
    gather(parts, [tmp_path / "joined/psnr.csv", tmp_path / "joined/evaluation.json"], join_folders)
    joined = tmp_path / "joined"
    assert whole == [(joined / "psnr.csv").read_bytes(), json.loads((joined / "evaluation.json").read_text())]
