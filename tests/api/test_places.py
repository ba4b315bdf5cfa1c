import json
from pathlib import Path

import pytest

from dvlae.api.inputs import find_inputs
from dvlae.api.places import Places
from dvlae.system.errors import UserError
from frames import settings


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the working folder, with some image files."""
    for name in ("a/x.tif", "b/x.tif", "b/y.ome.tif", "b/y.ome_denoised.tif", "b/y_denoised.tif", "z.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("record", ["b/y.ome_denoised.json", "b/y.ome_denoised_work/finished.json"])
def test_only_what_a_record_lists_is_a_result(folder, record):
    (folder / record).parent.mkdir(exist_ok=True)
    (folder / record).write_text(json.dumps({"request": {}, "results": ["y.ome_denoised.tif"]}))
    inputs, results = find_inputs(["b", "z.tif"])
    assert [file.name for file in inputs] == ["x.tif", "y.ome.tif", "y_denoised.tif", "z.tif"]
    assert [file.name for file in results] == ["y.ome_denoised.tif"]
    # A shell makes names of `b/*.tif`.
    inputs, results = find_inputs([str(file) for file in sorted((folder / "b").glob("*.tif"))])
    assert len(inputs) == 3 and [file.name for file in results] == ["y.ome_denoised.tif"]
    inputs, results = find_inputs(["b/y.ome_denoised.tif"])
    assert [file.name for file in inputs] == ["y.ome_denoised.tif"] and results == []
    with pytest.raises(UserError, match=r"only results of earlier commands, such as .*y\.ome_denoised\.tif"):
        find_inputs(["b/y.ome_*.tif"])


@pytest.mark.parametrize(
    "patterns, output, base, together",
    [
        (["z.tif"], None, "z", None),
        (["a/x.tif", "z.tif"], None, "a/x", None),
        (["a/*.tif"], None, "a/x", None),
        (["a"], None, "a_denoised/a", "a_denoised"),
        (["a/"], "out", "out/a", "out"),
        (["z.tif"], "out", "out/z", "out"),
    ],
)
def test_results_are_named_after_the_first_image_or_the_folder(folder, patterns, output, base, together):
    inputs, _ = find_inputs(patterns)
    places = Places.choose(patterns, inputs, None if output is None else Path(output))
    assert places.base == folder / base
    assert places.together == (None if together is None else folder / together)
    assert places.model == folder / f"{base}_denoised_model"


def test_results_of_a_folder_are_beside_the_link_that_the_user_names(folder):
    (folder / "far" / "away").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "far" / "away", target_is_directory=True)
    assert Places.choose(["link"], [], None).together == folder / "link_denoised"
    assert Places.choose(["link/.."], [], None).together == folder / "far_denoised"


@pytest.mark.parametrize(
    "source, name, expected",
    [
        ("a/x.tif", "x", "a/x_denoised.tif"),
        ("a/x.tif", "a_x", "a/x_denoised.tif"),
        ("x/x.tif", "x_x", "x/x_denoised.tif"),
        ("a/x.tif", "a_x_second", "a/x_second_denoised.tif"),
        ("b/y.ome.tif", "y.ome", "b/y.ome_denoised.tif"),
    ],
)
def test_a_result_beside_its_image_is_named_after_it_alone(folder, source, name, expected):
    assert Places(folder / "x", None).result(folder / source, name, "denoised") == folder / expected
    together = Places(folder / "x", folder / "out").result(folder / source, name, "denoised")
    assert together == folder / "out" / f"{name}_denoised.tif"


@pytest.mark.parametrize("letters", ["x" * 240, "é" * 120, "x" * 250])
def test_a_name_that_is_too_long_for_results_is_refused_before_anything_is_made(folder, letters):
    image = folder / f"{letters}.tif"
    places = Places.choose([str(image)], [image], None)
    with pytest.raises(UserError, match="no file can have such a long name; rename the image"):
        places.lock()
        places.results_of([image], settings())
    shorter = folder / f"{letters[: 239 // len(letters[0].encode())]}.tif"
    for path in Places.choose([str(shorter)], [shorter], None).results_of([shorter], settings()):
        path.touch()
