import pytest

from dvlae.data.registry import read_registry
from dvlae.system.errors import UserError


@pytest.mark.parametrize("file", ["../a.tif", "/a.tif", "set/../../a.tif", ""])
def test_a_registry_cannot_write_outside_the_data_folder(tmp_path, file):
    (tmp_path / "r.csv").write_text(f"file,sha256,url\n{file},,http://localhost/a\n")
    with pytest.raises(UserError, match=r"r.csv: line 2: file: found .* allowed: a path below the data folder"):
        read_registry(tmp_path / "r.csv")


def test_a_registry_of_windows_is_read(tmp_path):
    text = "file,sha256,url\r\na.tif,,https://example.org/a.tif\r\n"
    (tmp_path / "r.csv").write_text("\ufeff" + text, encoding="utf-8", newline="")
    assert read_registry(tmp_path / "r.csv")["a.tif"][0].url == "https://example.org/a.tif"
    (tmp_path / "r.csv").write_text(text, encoding="utf-16")
    with pytest.raises(UserError, match=r"r.csv: not a CSV file in UTF-8"):
        read_registry(tmp_path / "r.csv")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,url\na,http://b\n", "found the columns file, url"),
        ("file,sha256,url\n", "found no files"),
        ("file,sha256,url\na,b,ftp://c\n", "allowed: http:// or https://"),
    ],
)
def test_a_wrong_registry_is_named(tmp_path, text, said):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(UserError, match=r"r.csv") as error:
        read_registry(tmp_path / "r.csv")
    assert said in str(error.value)
    with pytest.raises(UserError, match=r"none.csv: no such file"):
        read_registry(tmp_path / "none.csv")
