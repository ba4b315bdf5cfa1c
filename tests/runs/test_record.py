import json

import pytest

from dvlae.runs.record import FORMAT, read_run, write_run
from dvlae.system.errors import UserError


def test_a_record_says_its_format_and_comes_back_as_it_was_written(tmp_path):
    write_run(tmp_path, {"seconds": 7.5})
    assert read_run(tmp_path) == {"format": FORMAT, "seconds": 7.5}


def test_a_record_of_the_time_before_formats_is_read(tmp_path):
    (tmp_path / "run.json").write_text('{"seconds": 7.5}')
    assert read_run(tmp_path) == {"seconds": 7.5}


@pytest.mark.parametrize("found", [0, FORMAT + 1, "2", None, [1]])
def test_a_record_of_another_format_is_refused_in_one_line(tmp_path, found):
    (tmp_path / "run.json").write_text(json.dumps({"format": found}))
    with pytest.raises(UserError, match=r"run\.json: format .* this version reads 1 to 2$"):
        read_run(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json: not the record of a training"):
        read_run(tmp_path)


def test_a_folder_without_a_record_is_named(tmp_path):
    with pytest.raises(UserError, match=r"run\.json: not found"):
        read_run(tmp_path)
