from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[3] / "config/methods"
FILES = {
    path.stem: content
    for path in sorted(FOLDER.glob("*.yaml"))
    if (content := yaml.safe_load(path.read_text(encoding="utf-8"))).get("function", "").startswith("filters.")
}
CALIBRATED = [name for name, content in FILES.items() if "calibration" in content.get("settings", {})]


def test_there_is_a_file_for_every_filter_calibrated_and_as_an_oracle():
    names = [
        name
        for base in ("gaussian", "median", "nlm", "tv", "wavelet", "bm3d", "bm3d-psd")
        for name in (base, base + "-oracle")
    ]
    assert sorted(FILES) == sorted([*names, "bm3d-vst", "noisy"])


@pytest.mark.parametrize("name", CALIBRATED)
def test_what_a_method_sees_is_what_it_is_calibrated_by(name):
    content = FILES[name]
    assert content["sees"] == content["settings"]["calibration"]
    assert content["oracle"] == (content["sees"] == "clean") == name.endswith("-oracle")


@pytest.mark.parametrize("name", [name for name in CALIBRATED if name + "-oracle" in FILES])
def test_an_oracle_differs_from_its_method_in_the_calibration_only(name):
    both = [FILES[one]["settings"] for one in (name, name + "-oracle")]
    assert both[0] | {"calibration": "clean"} == both[1]


@pytest.mark.parametrize("name", CALIBRATED)
def test_a_filter_says_its_licence_its_source_and_what_to_cite(name):
    assert all(FILES[name][key] for key in ("licence", "source", "citation"))


@pytest.mark.parametrize("name", ["gaussian", "median", "nlm", "tv", "wavelet"])
def test_a_filter_that_calibrates_itself_says_who_chose_how_with_clean_images_in_sight(name):
    assert "chosen by us with the clean images of SEM and Kodak in sight" in FILES[name]["tuned_by"]


@pytest.mark.parametrize("name", ["gaussian", "median", "nlm", "tv", "wavelet", "bm3d", "bm3d-oracle"])
def test_a_filter_that_takes_noise_as_white_says_so(name):
    assert "as independent between pixels" in FILES[name]["description"]
