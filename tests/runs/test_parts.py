import json
import os

import pytest

from dvlae.data.outputs.folder import join_folders
from dvlae.runs.parts import Part, gather, hash_hashes
from dvlae.system.errors import UserError


@pytest.fixture
def parts(tmp_path):
    """Two parts of a dataset of three images, as jobs leave them."""
    folders = [tmp_path / "parts" / name for name in ("1-of-2", "2-of-2")]
    for folder, names, seconds in zip(folders, (["a"], ["b", "c"]), (1.5, 2.25), strict=True):
        (folder / "denoised").mkdir(parents=True)
        for name in names:
            (folder / "denoised" / f"{name}.tif").write_text(name)
        (folder / "denoised/.snakemake_timestamp").touch()
        (folder / "psnr.csv").write_text("image,psnr\n" + "".join(f"{name},30.0000\n" for name in names))
        record = {"settings": {"samples": 2}, "device": "cpu", "seconds": seconds, "git_commit": str(seconds)}
        (folder / "prediction.json").write_text(json.dumps(record))
        (folder / "evaluation.json").write_text(json.dumps({"images_sha256": [name * 64 for name in names]}))
    return folders


@pytest.mark.parametrize("text, part", [("2/4", Part(2, 4)), ("2-of-4", Part(2, 4)), ("1/1", Part(1, 1))])
def test_a_part_is_written_with_a_slash_or_as_snakemake_does(text, part):
    assert Part.parse(text) == part


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "1/2/3", "a/b", "-1/2", ""])
def test_another_part_is_refused(text):
    with pytest.raises(UserError, match=r"--part: found '.*', allowed: K/N, with K from 1 to N"):
        Part.parse(text)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("images", [0, 1, 7, 10])
def test_all_parts_together_have_each_item_once_in_order_and_equal_shares(images, count):
    shares = [Part(number, count).share(range(images)) for number in range(1, count + 1)]
    assert [item for share in shares for item in share] == list(range(images))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


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
        "settings": {"samples": 2}, "device": "cpu", "seconds": 3.8, "git_commit": "1.5",
    }  # fmt: skip
    expected = hash_hashes(name * 64 for name in "abc")
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"images_sha256": expected}


def test_a_record_names_each_device_once(parts, tmp_path):
    for part, device in zip(parts, ("A100", "H100"), strict=True):
        (part / "prediction.json").write_text(json.dumps({"device": device, "seconds": 1}))
    gather([*parts, parts[0]], [tmp_path / "prediction.json"], join_folders)
    assert json.loads((tmp_path / "prediction.json").read_text())["device"] == "A100, H100"


def test_parts_with_different_settings_are_refused(parts, tmp_path):
    (parts[1] / "prediction.json").write_text(json.dumps({"settings": {"samples": 3}, "device": "cpu", "seconds": 1}))
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
