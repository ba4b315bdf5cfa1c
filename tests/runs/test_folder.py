from pathlib import Path

import pandas as pd
import pytest

from dvlae.runs.folder import MEASURE_COLUMNS, PSNR_COLUMNS, DatasetFolder, Run, RunFolder, read_psnr
from dvlae.system.errors import UserError


def read(folder, method, field):
    folder.path.mkdir(parents=True)
    pd.DataFrame([("small", method, field, 0, "a", 30.0, 0.5, 20.0)], columns=PSNR_COLUMNS).to_csv(
        folder.psnr, index=False
    )
    return Run.read(folder.psnr)


def test_a_run_knows_the_folder_of_its_dataset(tmp_path):
    folder = RunFolder.of(tmp_path, "small", "dvlae-rf4", 1)
    assert folder.path == tmp_path / "small/dvlae-rf4/seed1"
    assert folder.dataset == DatasetFolder(tmp_path / "small")
    assert folder.training_record == tmp_path / "small/dvlae-rf4/seed1/model/run.json"


@pytest.mark.parametrize(
    "method, field, label",
    [
        ("dvlae-rf4", 4, "DVLAE, receptive field 4 px"),
        ("dvlae-rf4-linear", 4, "DVLAE, receptive field 4 px, linear"),
        ("dvlae-refined", 4, "dvlae-refined"),
        ("bm3d", None, "bm3d"),
    ],
)
def test_methods_of_one_receptive_field_have_names_of_their_own(tmp_path, method, field, label):
    assert read(RunFolder.of(tmp_path, "small", method, 0), method, field).label == label


def test_a_table_anywhere_has_a_dataset_folder(monkeypatch):
    monkeypatch.chdir("/")
    assert RunFolder(Path()).dataset == RunFolder(Path("/")).dataset == DatasetFolder(Path("/"))


def test_measures_are_empty_in_a_table_of_an_older_version(tmp_path):
    psnr = read(RunFolder.of(tmp_path, "small", "noisy", 0), "noisy", None).psnr
    assert tuple(psnr.columns) == (*PSNR_COLUMNS, *MEASURE_COLUMNS)
    assert psnr[list(MEASURE_COLUMNS)].isna().all(axis=None)


@pytest.mark.parametrize("name", ["kodak", "sem", "sem_ablation"])
def test_the_committed_tables_of_an_older_version_are_read(name):
    assert read_psnr(Path(__file__).parents[2] / "results/reference" / name / "psnr.csv").psnr.notna().all()


def test_a_table_with_other_columns_is_refused(tmp_path):
    path = tmp_path / "psnr.csv"
    pd.DataFrame([range(9)], columns=[*PSNR_COLUMNS, "other"]).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"found columns .*'other'.* expected"):
        read_psnr(path)


def test_what_was_not_recorded_is_empty(tmp_path):
    run = read(RunFolder.of(tmp_path, "small", "noisy", 0), "noisy", None)
    assert (run.training, run.method_record, run.prediction, run.evaluation, run.minutes) == ({}, {}, {}, {}, None)
