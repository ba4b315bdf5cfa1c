import json
import os

import pytest

from dvlae.data.outputs.folder import join_folders
from dvlae.runs.gather import gather
from dvlae.system.errors import UserError
from dvlae.system.hashes import combine_hashes


@pytest.fixture
def parts(tmp_path):
    """Two parts of a dataset of three images, as jobs leave them."""
    folders = [tmp_path / "parts" / name for name in ("1-of-2", "2-of-2")]
    contents = zip(folders, ("1/2", "2/2"), (["a"], ["b", "c"]), (1.5, 2.25), strict=True)
    for folder, part, names, seconds in contents:
        (folder / "denoised").mkdir(parents=True)
        for name in names:
            (folder / "denoised" / f"{name}.tif").write_text(name)
        (folder / "denoised/.snakemake_timestamp").touch()
        (folder / "psnr.csv").write_text("image,psnr\n" + "".join(f"{name},30.0000\n" for name in names))
        record = {"settings": {"samples": 2}, "device": "cpu", "seconds": seconds, "git_commit": str(seconds)}
        record["workers"] = len(names)
        (folder / "prediction.json").write_text(json.dumps(record | {"part": part}))
        record = {"images_sha256": [name * 64 for name in names], "part": part}
        (folder / "evaluation.json").write_text(json.dumps(record))
    return folders


def test_a_folder_gets_the_files_of_all_parts_as_links(parts, tmp_path):
    gather(parts, [tmp_path / "denoised"], join_folders)
    assert {path.name: path.read_text() for path in (tmp_path / "denoised").iterdir()} == {
        "a.tif": "a", "b.tif": "b", "c.tif": "c",
    }  # fmt: skip
    assert (tmp_path / "denoised/c.tif").samefile(parts[1] / "denoised/c.tif")


def test_files_are_copied_where_there_are_no_hard_links(parts, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    gather(parts, [tmp_path / "denoised"], join_folders)
    assert (tmp_path / "denoised/c.tif").read_text() == "c"
    assert not (tmp_path / "denoised/c.tif").samefile(parts[1] / "denoised/c.tif")


def test_a_table_gets_the_rows_of_all_parts(parts, tmp_path):
    gather(parts, [tmp_path / "psnr.csv"], join_folders)
    assert (tmp_path / "psnr.csv").read_text() == "image,psnr\na,30.0000\nb,30.0000\nc,30.0000\n"


def test_a_record_gets_the_sum_of_the_seconds_and_one_hash_of_all_images(parts, tmp_path):
    gather(parts, [tmp_path / "prediction.json", tmp_path / "evaluation.json"], join_folders)
    assert json.loads((tmp_path / "prediction.json").read_text()) == {
        "settings": {"samples": 2}, "device": "cpu", "seconds": 3.8, "git_commit": "1.5", "workers": 2,
    }  # fmt: skip
    expected = combine_hashes(name * 64 for name in "abc")
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"images_sha256": expected}


def change(part, **values):
    path = part / "prediction.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("devices, joined", [(("A100", "H100"), "A100, H100"), (("A100", "A100"), "A100")])
def test_a_record_names_each_device_once(parts, tmp_path, devices, joined):
    for part, device in zip(parts, devices, strict=True):
        change(part, device=device)
    gather(parts, [tmp_path / "prediction.json"], join_folders)
    assert json.loads((tmp_path / "prediction.json").read_text())["device"] == joined


def test_a_whole_dataset_is_the_only_part(parts, tmp_path):
    record = {"images_sha256": "fed"}
    (parts[0] / "prediction.json").unlink()
    (parts[0] / "evaluation.json").write_text(json.dumps(record))
    gather(parts[:1], [tmp_path / "evaluation.json"], join_folders)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == record


@pytest.mark.parametrize("order, found, allowed", [
    ([0], "1/2", "1/1"), ([1, 0], "2/2", "1/2"), ([0, 0], "1/2", "2/2"), ([0, 1, 1], "1/2", "1/3"),
])  # fmt: skip
@pytest.mark.parametrize("output", ["psnr.csv", "denoised", "prediction.json"])
def test_parts_that_are_not_all_or_not_in_order_are_refused(parts, tmp_path, order, found, allowed, output):
    with pytest.raises(UserError, match=rf"\.json: found part {found}, allowed: {allowed}; name all parts, in order"):
        gather([parts[index] for index in order], [tmp_path / output], join_folders)
    assert not (tmp_path / output).exists()


def test_parts_with_different_settings_are_refused(parts, tmp_path):
    change(parts[1], settings={"samples": 3})
    with pytest.raises(UserError, match=r"2-of-2/prediction.json: settings: found .*3.*, allowed: .*2"):
        gather(parts, [tmp_path / "prediction.json"], join_folders)
    assert not (tmp_path / "prediction.json").exists()


def test_tables_with_different_columns_are_refused(parts, tmp_path):
    (parts[1] / "psnr.csv").write_text("image,ssim\n")
    with pytest.raises(UserError, match=r"2-of-2/psnr.csv: found columns \['image', 'ssim'\]"):
        gather(parts, [tmp_path / "psnr.csv"], join_folders)


def test_an_image_in_two_parts_is_refused(parts, tmp_path):
    (parts[1] / "denoised/a.tif").touch()
    with pytest.raises(UserError, match=r"2-of-2/denoised/a.tif: found in two parts"):
        gather(parts, [tmp_path / "denoised"], join_folders)
    assert not (tmp_path / "denoised").exists()


def test_a_part_that_is_not_finished_is_refused(parts, tmp_path):
    with pytest.raises(UserError, match=r"1-of-2/samples: not found; gather after all parts are finished"):
        gather(parts, [tmp_path / "samples"], join_folders)
    assert list(tmp_path.iterdir()) == [parts[0].parent]


def test_parts_with_different_settings_are_refused_whatever_is_joined(parts, tmp_path):
    change(parts[1], settings={"samples": 3})
    with pytest.raises(UserError, match=r"2-of-2/prediction.json: settings: found .*3.*, allowed: .*2"):
        gather(parts, [tmp_path / "denoised"], join_folders)
    assert not (tmp_path / "denoised").exists()


@pytest.mark.parametrize("output", ["", "/", "..", "hostname", "a.csv"])
def test_an_output_that_no_step_makes_is_refused(parts, tmp_path, output):
    with pytest.raises(UserError, match=r"--output: found '.*', allowed: a path that ends in denoised, "):
        gather(parts, [tmp_path / output], join_folders)


def test_an_output_in_a_part_is_refused(parts):
    with pytest.raises(UserError, match=r"1-of-2/denoised: is in a part, which must not change"):
        gather(parts, [parts[0] / "denoised"], join_folders)
    assert len(list((parts[0] / "denoised").glob("*.tif"))) == 1


@pytest.mark.parametrize("output, record", [("denoised", "prediction.json"), ("psnr.csv", "evaluation.json")])
def test_a_part_without_a_record_is_refused(parts, tmp_path, output, record):
    (parts[1] / record).unlink()
    with pytest.raises(UserError, match=rf"2-of-2: found no {record}.*, allowed: a part that is finished"):
        gather(parts, [tmp_path / output], join_folders)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe"])
def test_a_damaged_table_is_refused(parts, tmp_path, content):
    (parts[1] / "psnr.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"2-of-2/psnr.csv: not a table"):
        gather(parts, [tmp_path / "psnr.csv"], join_folders)


def test_a_record_without_names_is_refused(parts, tmp_path):
    (parts[1] / "prediction.json").write_text("[]")
    with pytest.raises(UserError, match=r"2-of-2/prediction.json: not a JSON record"):
        gather(parts, [tmp_path / "denoised"], join_folders)
