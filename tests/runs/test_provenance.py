import json

import pandas as pd
import pytest

from dvlae.reporting import tables
from dvlae.runs.folder import PSNR_COLUMNS
from dvlae.system.errors import UserError

TRAINING = {
    "versions": {"torch": "2.5"},
    "settings": {"model": {"levels": 3}, "training": {"max_minutes": 10.0}, "device": "auto", "devices": 1},
    "receptive_field": 40,
    "noise_direction": "x",
    "revision": 2,
    "patches": {"train": "abc", "val": "def"},
    "device": "cpu",
    "workers": 2,
    "seconds": 600.0,
    "git_commit": "c0ffee",
}
EVALUATION = {"settings": {"border": 8, "crop": None}, "images_sha256": "fed", "targets_sha256": "bee"}
PREDICTION = {"settings": {"samples": 16}}


def write_run(
    results, method="dvlae-rf40", seed=0, *, run=TRAINING, evaluation=EVALUATION, prediction=PREDICTION, **values
):
    folder = results / "sem_line" / method / f"seed{seed}"
    (folder / "model").mkdir(parents=True)
    names, noisy = values.get("images", ("one", "two")), values.get("noisy", 20.0)
    rows = [("sem_line", method, 40, seed, name, 30.0, 0.5, noisy) for name in names]
    pd.DataFrame(rows, columns=PSNR_COLUMNS).to_csv(folder / "psnr.csv", index=False)
    for name, record in (("model/run", run), ("evaluation", evaluation), ("prediction", prediction)):
        if record is not None:
            (folder / f"{name}.json").write_text(json.dumps(record))
    return folder / "psnr.csv"


def make(results, *runs):
    tables.make_tables(list(runs), results / "tables")
    return pd.read_csv(results / "tables" / "provenance.csv")


def altered(record, **changes):
    return record | {"settings": record["settings"] | changes}


def test_each_run_leads_to_its_record(tmp_path):
    found = make(tmp_path, write_run(tmp_path), write_run(tmp_path, seed=1))
    assert found.record.tolist() == [f"sem_line/dvlae-rf40/seed{seed}/model/run.json" for seed in (0, 1)]
    assert all((tmp_path / path).is_file() for path in found.record)


def test_each_run_has_its_settings_versions_hashes_commit_device_and_seconds(tmp_path):
    found = make(tmp_path, write_run(tmp_path)).iloc[0]
    assert json.loads(found.settings)["training"]["max_minutes"] == 10.0
    assert json.loads(found.prediction)["samples"] == 16
    assert json.loads(found.evaluation) == {"border": 8, "crop": None}
    assert json.loads(found.versions) == {"torch": "2.5"}
    assert (found.train_sha256, found.val_sha256) == ("abc", "def")
    assert (found.images_sha256, found.targets_sha256) == ("fed", "bee")
    assert (found.git_commit, found.device, found.workers, found.seconds) == ("c0ffee", "cpu", 2, 600.0)


def test_a_run_without_any_record_has_a_row_all_the_same(tmp_path):
    found = make(tmp_path, write_run(tmp_path, run=None, evaluation=None, prediction=None))
    assert len(found) == 1 and pd.isna(found.record[0])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"run": altered(TRAINING, training={"max_minutes": 60.0})}, r"training.max_minutes: found 10.0 .* and 60.0"),
        (
            {"run": altered(TRAINING, training={"schedule": "plateau"})},
            r"training.schedule: found cosine .* and plateau",
        ),
        ({"run": TRAINING | {"revision": 3}}, "revision: found 2 .* and 3"),
        ({"run": TRAINING | {"patches": {"train": "other", "val": "def"}}}, "train_sha256: found abc .* and other"),
        ({"prediction": altered(PREDICTION, samples=4)}, "prediction.samples: found 16 .* and 4"),
        ({"prediction": altered(PREDICTION, antithetic=False)}, "prediction.antithetic: found True .* and False"),
        ({"evaluation": altered(EVALUATION, border=0)}, "evaluation.border: found 8 .* and 0"),
    ],
    ids=str,
)
def test_seeds_with_different_settings_never_share_a_row(tmp_path, changes, words):
    runs = write_run(tmp_path), write_run(tmp_path, seed=1, **changes)
    with pytest.raises(UserError, match=f"^sem_line: {words}.*seed 1"):
        make(tmp_path, *runs)


def test_seeds_may_have_been_trained_on_different_devices_and_with_different_versions(tmp_path):
    run = altered(TRAINING, device="cuda", devices=2) | {"device": "H200", "versions": {"torch": "2.6"}, "workers": 9}
    assert len(make(tmp_path, write_run(tmp_path), write_run(tmp_path, seed=1, run=run))) == 2


def test_what_an_older_version_did_not_record_is_no_difference(tmp_path):
    older = altered(TRAINING, training={})
    runs = write_run(tmp_path), write_run(tmp_path, seed=1, run=older, evaluation=None, prediction=None)
    assert len(make(tmp_path, *runs)) == 2


def test_methods_with_different_settings_have_rows_of_their_own(tmp_path):
    other = altered(TRAINING, training={"max_minutes": 60.0})
    make(tmp_path, write_run(tmp_path), write_run(tmp_path, "dvlae-rf40-longer", run=other))
    for table in ("summary", "receptive_field"):
        assert len(pd.read_csv(tmp_path / "tables" / f"{table}.csv")) == 2


def test_methods_evaluated_in_different_ways_are_not_compared(tmp_path):
    runs = write_run(tmp_path, evaluation=None), write_run(tmp_path, "dvlae-rf4", evaluation=None, noisy=21.0)
    with pytest.raises(UserError, match=r"sem_line, one: found 20.00 and 21.00 dB for the noisy image"):
        make(tmp_path, *runs)


def test_methods_evaluated_on_different_images_are_not_compared(tmp_path):
    runs = write_run(tmp_path, evaluation=None), write_run(tmp_path, "dvlae-rf4", evaluation=None, images=["one"])
    with pytest.raises(UserError, match="sem_line: found runs evaluated on different images"):
        make(tmp_path, *runs)


def test_a_run_given_twice_is_refused(tmp_path):
    run = write_run(tmp_path)
    with pytest.raises(UserError, match="sem_line, dvlae-rf40: found seed 0 twice"):
        make(tmp_path, run, run)


def test_patches_that_were_cut_since_say_nothing_of_what_was_trained_on(tmp_path):
    run = write_run(tmp_path)
    (tmp_path / "sem_line/patches").mkdir()
    newer = {"sha256": {"train": "newer", "val": "newer"}, "sources": {"train": [["one", 0, 0]]}}
    (tmp_path / "sem_line/patches/patches.json").write_text(json.dumps(newer))
    assert pd.isna(make(tmp_path, run).trained_on[0])


def test_a_damaged_record_is_named(tmp_path):
    run = write_run(tmp_path)
    (run.parent / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match=r"evaluation\.json: not a JSON record"):
        make(tmp_path, run)
