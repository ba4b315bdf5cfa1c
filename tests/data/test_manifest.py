import numpy as np
import pytest

from dvlae.data.manifest import is_manifest, read_manifest, select, spread_evenly
from dvlae.system.errors import UserError

NAMES = ["a 1", "a 2", "a 10"]


def test_the_manifest_lists_images_with_absolute_paths(images_folder):
    folder = images_folder(**{"with space": np.ones((2, 5, 6)), "b": np.ones((2, 7, 8)), "v": np.ones((1, 4, 7, 8))})
    first, second, third = read_manifest(folder)
    assert (first.name, first.noisy, first.clean) == ("with space", folder / "noisy" / "with space.tif", None)
    assert (second.shape, third.shape) == ((2, 7, 8), (1, 4, 7, 8))


def test_a_folder_without_a_manifest_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"manifest.csv: no such file; `dvlae prepare` makes it"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a manifest"):
        read_manifest(tmp_path)
    with pytest.raises(UserError, match=r"manifest.csv: found a file, allowed: a folder, which `dvlae prepare` makes"):
        read_manifest(tmp_path / "manifest.csv")


@pytest.mark.parametrize(
    ("images", "chosen"),
    [("all", NAMES), ("0:2", NAMES[:2]), ("-1:", NAMES[2:]), ("::2", NAMES[::2]), (["a 10", "a 1"], ["a 1", "a 10"])],
)
def test_images_are_chosen_in_the_order_of_the_dataset(images, chosen):
    assert select(NAMES, images) == chosen


def test_images_can_be_chosen_by_a_file_of_names(tmp_path):
    (tmp_path / "names.txt").write_text("a 10\n\na 2\n")
    assert select(NAMES, str(tmp_path / "names.txt")) == ["a 2", "a 10"]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_of_windows_are_read(tmp_path, images_folder, mark):
    (tmp_path / "names.txt").write_text(f"{mark}a 10\r\na 2\r\n", encoding="utf-8", newline="")
    assert select(NAMES, str(tmp_path / "names.txt")) == ["a 2", "a 10"]
    folder = images_folder(a=np.ones((1, 5, 6)))
    text = (folder / "manifest.csv").read_text(encoding="utf-8")
    (folder / "manifest.csv").write_text(mark + text.replace("\n", "\r\n"), encoding="utf-8", newline="")
    assert [image.name for image in read_manifest(folder)] == ["a"]
    assert is_manifest(folder / "manifest.csv")


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (["a 3"], "found 'a 3', allowed: names of the dataset's images, such as a "),
        ("5:", "found '5:', which selects none of the 3 images"),
        ("some.txt", "found 'some.txt', allowed: all, a list, a slice such as 0:8, or a file of names"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(images, said):
    with pytest.raises(UserError) as error:
        select(NAMES, images)
    assert said in str(error.value)


def test_a_file_without_names_is_refused(tmp_path):
    (tmp_path / "names.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"names.txt: found no image names"):
        select(NAMES, str(tmp_path / "names.txt"))


@pytest.mark.parametrize(
    ("count", "most", "chosen"), [(10, 4, [0, 3, 6, 9]), (3, 8, [0, 1, 2]), (1, 4, [0]), (5, 1, [0])]
)
def test_things_are_chosen_evenly_from_the_first_to_the_last(count, most, chosen):
    assert spread_evenly(count, most).tolist() == chosen
