import os
import unicodedata
from pathlib import Path, PureWindowsPath

import pytest

from dvlae.data.files import find_images, natural_key, unique_names
from dvlae.system.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Return a function that makes empty files, and the folder."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def found(patterns, folder) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(patterns, folder, "noisy")]


def refusal(patterns, folder) -> str:
    with pytest.raises(UserError) as error:
        find_images(patterns, folder, "noisy")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_files_are_found_in_natural_order(folder):
    there = folder("im 10.tif", "im 2.tif", "im 1.PNG")
    assert found("im*", there) == ["im 1.PNG", "im 2.tif", "im 10.tif"]
    assert find_images(str(there / "im 2.*"), there / "elsewhere", "noisy") == [there / "im 2.tif"]
    assert len(find_images(["im 2.tif", "im 1*", "im 10.tif"], there, "noisy")) == 3


@pytest.mark.parametrize(
    ("name", "start", "right"),
    [
        ("a.tif ", b"II*\0", "a.tif"),
        ("a.tif.", b"MM\0*", "a.tif"),
        ("scan", b"II*\0", "scan.tif"),
        ("b.001", b"\x89PNG\r\n\x1a\n", "b.001.png"),
        ("c.data", b"\x93NUMPY", "c.data.npy"),
    ],
)
def test_an_image_whose_name_does_not_say_so_is_to_be_renamed(folder, name, start, right):
    (folder(name) / name).write_bytes(start)
    assert f"rename it to {right!r}" in refusal(name, folder())
    (folder() / name).write_bytes(b"PK\3\4")
    assert "rename" not in refusal(name, folder())


def test_case_does_not_change_the_order(folder):
    assert found("*.tif", folder("a1.tif", "A2.tif", "a10.TIF", "A10.tif")) == [
        "a1.tif",
        "A2.tif",
        "A10.tif",
        "a10.TIF",
    ]


def test_signs_that_only_some_languages_count_with_are_text(folder):
    there = folder("2²1.tif", "x.tif", "٣.tif", "1.tif")
    assert set(found("*.tif", there)) == {"2²1.tif", "x.tif", "٣.tif", "1.tif"}
    assert natural_key("2²1")[0] == [(0, 2, ""), (1, 0, "²"), (0, 1, "")]


@pytest.mark.parametrize("name", ["scan [1].tif", "Exp [1]/a.tif", "[ab]/[!c].tif", "a*b.tif", "what?.tif"])
def test_names_with_the_signs_of_globs_are_found(folder, name):
    assert found(name, folder(name)) == [name]


def test_brackets_stand_for_themselves_where_nothing_else_matches(folder):
    there = folder("Exp [1]/scan [2] a.tif", "Exp [1]/other.tif", "Exp 3/scan 4.tif")
    assert found("Exp [1]/scan [2]*.tif", there) == ["Exp [1]/scan [2] a.tif"]
    assert found("Exp [0-9]/*.tif", there) == ["Exp 3/scan 4.tif"]


def test_two_stars_match_any_number_of_folders(folder):
    there = folder("a.tif", "x/b.tif", "x/y/c.tif", "x/y/d.txt", ".hidden/e.tif", "x/._f.tif")
    assert found("**/*.tif", there) == ["a.tif", "x/b.tif", "x/y/c.tif"]
    assert found("x/**/*.tif", there) == ["x/b.tif", "x/y/c.tif"]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_are_found_in_either_form_of_unicode(folder, forms):
    stored, written = (unicodedata.normalize(form, "Zürich é.tif") for form in forms)
    assert found(written, folder(stored)) == [stored]
    assert found(written.replace(".tif", "*"), folder(stored)) == [stored]


def test_a_folder_stands_for_the_images_in_it(folder):
    there = folder("in/b.TIF", "in/a.png", "in/notes.txt", "in/below/c.tif", "in/store.zarr/x")
    assert found("in", there) == ["in/a.png", "in/b.TIF", "in/store.zarr"]
    assert found("in/", there) == found(str(there / "in"), there) == ["in/a.png", "in/b.TIF", "in/store.zarr"]
    assert found("in/store.zarr", there) == ["in/store.zarr"]
    (there / "empty").mkdir()
    assert "the folder" in refusal("empty", there) and "contains no images" in refusal("empty", there)


def test_no_match_says_what_is_there_instead(folder):
    there = folder("up/A.TIF", "up/b.czi")
    message = refusal("up/a*.tif", there)
    assert message.startswith("noisy: no file matches 'up/a*.tif' in /")
    assert "upper and lower case differ: there is 'A.TIF'" in message
    assert found("up/A*.TIF", there) == ["up/A.TIF"]
    assert refusal("up/*.lsm", there).endswith("there are 'A.TIF', 'b.czi'")
    assert refusal("nowhere/*.lsm", there).endswith(str(there))
    anywhere = str(there / "nowhere/*.lsm")
    assert refusal(anywhere, there) == f"noisy: no file matches {anywhere!r}"


@pytest.mark.parametrize("pattern", ["[ul]*.tif", "??.TIF", "**/*.Tif", ".", "u*[tT][iI][fF]", ["lo.tif", "UP.tif"]])
def test_a_suffix_is_found_in_upper_and_lower_case(folder, caplog, pattern):
    names = ["lo.tif", "UP.TIF"] if isinstance(pattern, list) else ["lo.tif", "up.TIF"]
    there = folder(*names)
    assert set(found(pattern, there)) == (set(names[1:]) if pattern == "u*[tT][iI][fF]" else set(names))
    assert not caplog.messages


def test_suffixes_of_several_parts_are_found_in_upper_and_lower_case(folder):
    there = folder("a.OME.TIF", "b.ome.tif", "c.A.tif", "d.a.TIFF", "e.OME.zarr/zarr.json")
    assert found("*.ome.tif", there) == ["a.OME.TIF", "b.ome.tif"]
    assert found("*.ome.ZARR", there) == ["e.OME.zarr"]
    assert found("*.a.tiff", there) == ["d.a.TIFF"]
    assert found("*.ti[f]", there) == ["b.ome.tif", "c.A.tif"]


def test_images_that_a_glob_leaves_out_for_their_case_are_named(folder, caplog):
    there = folder("a1.tif", "A2.tif", "A3.TIF", "Day/a4.tif", "day/a5.tif", "A6.txt", "data/a7.tif", "Data/a8.tif")
    assert found("a*.tif", there) == ["a1.tif"]
    assert caplog.messages[0].startswith("noisy: 'a*.tif' leaves out 'A2.tif', 'A3.TIF', as upper and lower case")
    assert found("[dD]ay/a*.tif", there) == ["Day/a4.tif", "day/a5.tif"]
    assert found("Data/*.tif", there) == ["Data/a8.tif"]
    assert found("[aA]*.tif", there) == ["a1.tif", "A2.tif", "A3.TIF"]
    assert len(caplog.messages) == 1
    found("D*y/*.tif", there)
    assert "leaves out 'a5.tif'" in caplog.messages[1]


def test_files_whose_suffix_differs_in_case_only_are_refused_and_can_be_chosen(folder):
    there = folder("a.tif", "a.TIF", "b.tif")
    files = find_images("*.tif", there, "noisy")
    with pytest.raises(UserError, match=r"a.tif: differs from a.TIF only in upper and lower case.*list the files"):
        unique_names(files)
    assert found(["a.tif", "b.tif"], there) == found("*.ti[f]", there) == ["a.tif", "b.tif"]


def test_the_home_folder_of_nobody_is_a_name(folder):
    assert found("~nobody-at-all/*.tif", folder("~nobody-at-all/a.tif")) == ["~nobody-at-all/a.tif"]


def test_other_kinds_of_files_are_refused(folder):
    message = refusal("*", folder("notes.txt"))
    assert "notes.txt: found a file of kind '.txt', allowed: .tif" in message
    assert "save this one as TIFF or PNG; a pattern such as '*.tif'" in refusal("*", folder("a.jpg"))


def test_links_are_followed_and_each_file_is_found_once(folder, caplog):
    there = folder("store/a.tif", "x/b.tif")
    (there / "x/c.tif").symlink_to(there / "store/a.tif")
    (there / "x/again.tif").symlink_to("b.tif")
    (there / "x/up").symlink_to(there)
    assert found("x/*.tif", there) == ["x/b.tif", "x/c.tif"]
    assert f"{there}/x/again.tif: is the same file as {there}/x/b.tif, which is read once" in caplog.messages
    assert found("**/*.tif", there) == ["store/a.tif", "x/b.tif"]


def test_a_link_that_leads_nowhere_is_refused(folder):
    there = folder("a.tif")
    (there / "b.tif").symlink_to("gone.tif")
    assert refusal("*.tif", there) == f"{there}/b.tif: is a link to gone.tif, which is not there"


def test_a_name_that_is_not_utf8_is_refused(folder):
    there = folder("a.tif")
    Path(os.fsdecode(os.fsencode(there) + b"/\xff.tif")).touch()
    assert "whose name is not UTF-8" in refusal("*.tif", there)
    assert refusal("*.tif", there).encode()


def test_files_of_one_name_in_several_folders_get_names_of_their_own(tmp_path):
    files = [tmp_path / "day1" / "a.tif", tmp_path / "day2" / "a.tif"]
    assert unique_names(files) == ["day1_a", "day2_a"]
    assert unique_names(files[:1]) == ["a"]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([r"C:\a\x.tif", r"C:\b\x.tif"], ["a_x", "b_x"]),
        ([r"C:\x.tif", r"D:\x.tif"], ["C_x", "D_x"]),
        ([r"C:\x.tif", r"\\server\share\x.tif"], ["C_x", "servershare_x"]),
    ],
)
def test_the_names_of_images_on_drives_of_windows_have_no_forbidden_characters(paths, names):
    assert unique_names([PureWindowsPath(path) for path in paths]) == names


@pytest.mark.parametrize(("other", "how"), [("a.png", "in their suffix"), ("A.tif", "in upper and lower case")])
def test_files_that_would_get_one_name_are_named(tmp_path, other, how):
    with pytest.raises(UserError, match=rf"{other}: differs from a.tif only {how}"):
        unique_names([tmp_path / "a.tif", tmp_path / other])
