import sys
import zipfile

import numpy as np
import pytest
import torch
import yaml

import dvlae.inference.export.bioimageio
import dvlae.inference.export.command
import dvlae.inference.export.example
from dvlae.config.settings import PredictionSettings
from dvlae.data.canonical import set_offset
from dvlae.inference.direct import denoise_directly
from dvlae.inference.export.bioimageio import check_library
from dvlae.inference.export.command import export
from dvlae.inference.export.formats import run_onnx, run_torchscript
from dvlae.models.files import load_model, save_model
from dvlae.system.errors import UserError
from untrained import build, noisy

NEEDED = "unavailable: the extra `export` is not installed"


@pytest.fixture
def model(tmp_path):
    """Return the folder of a model with a direct denoiser, whose tiles are small."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_model(build(levels=2, direct_denoiser="mean"), folder)
    return folder


@pytest.fixture(scope="module")
def library():
    """Skip without the library of the zoo, or where it does not work."""
    try:
        check_library()
    except UserError as error:
        pytest.skip(f"unavailable: {error}")


def package(model, output, **options):
    export(model, output, kind="bioimageio", licence="MIT", authors=["Ada Lovelace"], **options)


def refused(model, output, **options) -> str:
    before = sorted(model.parent.rglob("*"))
    with pytest.raises(UserError) as error:
        export(model, output, **options)
    assert sorted(model.parent.rglob("*")) == before
    return str(error.value)


@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_the_file_gives_our_own_numbers_in_grey_values(model, tmp_path, kind):
    if kind == "onnx":
        pytest.importorskip("onnx", reason=NEEDED)
        pytest.importorskip("onnxruntime", reason=NEEDED)
    path = tmp_path / {"torchscript": "new/a.pt", "onnx": "new/a.onnx"}[kind]
    export(model, path, kind=kind)
    denoise = {"torchscript": run_torchscript, "onnx": run_onnx}[kind](path)
    image = noisy(30, 41)
    settings = PredictionSettings(estimator="direct", flips=False, shifts=1)
    expected = denoise_directly(load_model(model), image, name="a", settings=settings)
    np.testing.assert_allclose(denoise(image[None])[0], expected, rtol=0, atol=0.007)
    assert [path.name for path in path.parent.iterdir()] == [path.name]


def test_grey_values_far_from_zero_are_as_exact_as_float32(tmp_path):
    (tmp_path / "m").mkdir()
    model = build(levels=2, direct_denoiser="mean")
    model.mean.fill_(60_000.0)
    model.std.fill_(2.0)
    save_model(model, tmp_path / "m")
    export(tmp_path / "m", tmp_path / "a.pt", kind="torchscript")


@pytest.mark.parametrize("value", [0.1, np.nan])
def test_a_file_with_other_numbers_is_not_left_there(model, tmp_path, monkeypatch, value):
    def run(path):
        denoise = run_torchscript(path)
        return lambda images: denoise(images) + np.float32(value)

    monkeypatch.setattr(dvlae.inference.export.command, "run_torchscript", run)
    message = refused(model, tmp_path / "a.pt", kind="torchscript")
    assert "standard deviations of the noise from our own numbers, allowed: 0.001; nothing was written" in message


def test_a_model_without_direct_denoiser_names_the_setting(tmp_path):
    (tmp_path / "m").mkdir()
    save_model(build(), tmp_path / "m")
    message = refused(tmp_path / "m", tmp_path / "a.pt", kind="torchscript")
    assert message.startswith(f"{tmp_path / 'm'}: found a model without a direct denoiser")
    assert "`model: {direct_denoiser: refined}`" in message


def test_the_papers_network_is_refused(tmp_path):
    (tmp_path / "m").mkdir()
    save_model(build(network="paper", direct_denoiser="mean"), tmp_path / "m")
    message = refused(tmp_path / "m", tmp_path / "a.pt", kind="torchscript")
    assert message == f"{tmp_path / 'm'}: found network 'paper', allowed: 'dvlae', the only one that is exported"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("stack.tif", {"kind": "onnx"}, "allowed for --format onnx: a name that ends with .onnx"),
        ("a.onnx", {"kind": "torchscript"}, "allowed for --format torchscript: a name that ends with .pt"),
        ("a.tif", {"kind": "bioimageio"}, "a name that ends with .zip or one without a suffix"),
        ("model", {"kind": "bioimageio"}, "which is no exported model; allowed: a new path"),
        ("model/model", {"kind": "bioimageio"}, "model/model: found a file, allowed: a folder to make"),
        (
            "a.pt",
            {"kind": "torchscript", "licence": "MIT"},
            "--license: found a value, but --format torch",
        ),
        ("a.pt", {"kind": "torchscript", "authors": ["A"]}, "--author: found a value, but --format torch"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused(model, tmp_path, name, options, message):
    (model / "model").touch()
    assert message in refused(model, tmp_path / name, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"authors": ["A"]}, "--license: found none, but --format bioimageio needs it; for example CC-BY-4.0"),
        ({"licence": "MIT"}, "--author: found none, but --format bioimageio needs it; for example 'Ada Lovelace'"),
        ({"licence": "MIT", "authors": ["A", "B/C"]}, "--author: found 'B/C', allowed: a name without slashes"),
        ({"licence": "MIT", "authors": [" "]}, "--author: found ' ', allowed: a name without slashes"),
        ({"licence": "free", "authors": ["A"]}, "--license: found 'free', allowed: an identifier of spdx.org/licenses"),
    ],
)
def test_a_package_needs_a_licence_of_spdx_and_an_author(library, model, tmp_path, options, message):
    assert message in refused(model, tmp_path / "a.zip", kind="bioimageio", **options)


@pytest.mark.parametrize("kind", ["onnx", "bioimageio"])
def test_a_missing_package_names_the_extra(model, tmp_path, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "onnx", None)
    output = tmp_path / {"onnx": "a.onnx", "bioimageio": "a.zip"}[kind]
    assert refused(model, output, kind=kind).endswith(
        "found no package 'onnx', which writes or checks such files; in a clone of dvlae: pip install "
        "'.[export]' --constraint constraints.txt"
    )


def test_a_pydantic_with_which_the_zoo_fails_names_the_extra(library, model, tmp_path, monkeypatch):
    versions = {"pydantic": "2.14.3", "bioimageio.spec": "0.5.12.0"}
    monkeypatch.setattr(dvlae.inference.export.bioimageio, "version", versions.get)
    message = refused(model, tmp_path / "a.zip", kind="bioimageio", licence="MIT", authors=["A"])
    assert "found pydantic 2.14.3, with which bioimageio.spec 0.5.12.0 fails; in a clone of dvlae: pip" in message


def test_images_of_which_an_offset_is_subtracted_are_refused(model, tmp_path, images_folder):
    images = images_folder(a=noisy(64, 64))
    set_offset(images / "noisy/a.tif", 4e9)
    message = refused(model, tmp_path / "a.pt", kind="torchscript", images=images)
    assert "found grey values so large or so small that 4e+09 is subtracted" in message


def test_images_that_show_nothing_are_refused(model, tmp_path, images_folder):
    images = images_folder(a=np.zeros((1, 64, 64)), b=np.full((1, 64, 64), 7))
    assert "found no image that shows noise" in refused(model, tmp_path / "a.pt", kind="torchscript", images=images)


@pytest.fixture
def zoo(library, monkeypatch):
    """Let examples be as small as their tiles, so that the library tests them faster."""
    monkeypatch.setattr(dvlae.inference.export.example, "SIDES", {1: 8, 2: 8, 3: 8})


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_package_passes_the_test_of_the_zoo(zoo, tmp_path, dimensions, caplog):
    caplog.set_level("INFO", "dvlae")
    folder = tmp_path / "model"
    folder.mkdir()
    save_model(build(levels=2, levels_per_scale=2, direct_denoiser="median", dimensions=dimensions), folder)
    package(folder, tmp_path / "Spheres, 5 kV.zip")
    with zipfile.ZipFile(tmp_path / "Spheres, 5 kV.zip") as archive:
        assert {"weights.pt", "weights.onnx", "cover.png", "noisy.npy", "noisy.tif"} < set(archive.namelist())
        described = yaml.safe_load(archive.read("rdf.yaml"))
        text = archive.read("README.md").decode()
    assert (described["name"], described["license"], described["id"]) == ("Spheres_ 5 kV", "MIT", "spheres__5_kv")
    assert described["authors"] == [{"name": "Ada Lovelace"}]
    assert [axis.get("id", axis["type"]) for axis in described["inputs"][0]["axes"]] == [
        "batch", "channel", *"zyx"[-dimensions:]
    ]  # fmt: skip
    assert "The estimate is the median of the posterior" in text
    assert "a sample of the model itself, not a recorded image" in text
    assert "It gives neither an uncertainty nor samples." in text
    assert "It gives neither an uncertainty nor samples." in caplog.text


def test_a_package_can_be_a_folder_with_a_recorded_image_and_is_replaced(zoo, model, tmp_path, images_folder):
    images = images_folder(blank=np.zeros((1, 40, 50)), small=noisy(40, 50), other=np.zeros((1, 30, 30)))
    for _ in range(2):
        package(model, tmp_path / "package", images=images)
    noise = np.load(tmp_path / "package/noisy.npy")
    np.testing.assert_array_equal(noise[0, :, :40, :50], noisy(40, 50))
    denoised = run_torchscript(tmp_path / "package/weights.pt")(noise)
    np.testing.assert_allclose(denoised, np.load(tmp_path / "package/denoised.npy"), rtol=0, atol=0.007)
    assert "part of the recorded image small" in (tmp_path / "package/README.md").read_text()


def test_a_package_that_fails_the_test_of_the_zoo_is_not_left_there(zoo, model, tmp_path, monkeypatch):
    def forget(folder, *arguments, **options):
        write_package(folder, *arguments, **options)
        (folder / "noisy.npy").unlink()

    write_package = dvlae.inference.export.command.write_package
    monkeypatch.setattr(dvlae.inference.export.command, "write_package", forget)
    options = {"kind": "bioimageio", "licence": "MIT", "authors": ["A"]}
    assert "the test of bioimageio.core found 'failed'" in refused(model, tmp_path / "a.zip", **options)
    assert "nothing was written" in refused(model, tmp_path / "package", **options)


def test_the_weights_of_other_parts_of_the_model_stay_out(model, tmp_path):
    export(model, tmp_path / "a.pt", kind="torchscript")
    names = {name for name, _ in torch.jit.load(tmp_path / "a.pt").named_parameters()}
    assert names
    assert not [name for name in names if "autoregressive" in name or "prior" in name]
