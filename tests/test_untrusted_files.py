"""Files of all kinds of damage and malice: one line about them, in bounded time, and nothing written anywhere."""

import copy
import io
import json
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import imageio.v3
import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvlae.config.dataset import DatasetSettings
from dvlae.config.loading import load_settings
from dvlae.config.methods import MethodSettings
from dvlae.config.settings import Settings
from dvlae.data.canonical import read_frame, write_image
from dvlae.data.manifest import read_manifest
from dvlae.data.sources import open_sources
from dvlae.models.architecture import Architecture
from dvlae.models.dvlae import DVLAE
from dvlae.models.files import load_model, save_model
from dvlae.system.errors import UserError
from dvlae.system.hashes import sha256
from frames import read_frames
from microscope_files import lif, nd2, png, unfiltered, write_czi

SECONDS = 30  # for one file, on a busy machine
# The same cases at each run: what CI has passed once it does not fail by chance.
fuzz = settings(derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)


class Hang(BaseException):
    """A file took too long; no handler of errors catches this."""


@contextmanager
def in_time():
    """Let the block end in time."""

    def stop(*_):
        raise Hang

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


@contextmanager
def one_line_at_most():
    """Let the block end well or with a line for the user, in time."""
    try:
        with in_time():
            yield
    except UserError as error:
        assert str(error).encode("utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("untrusted")


@st.composite
def damaged(draw, contents: list[bytes]):
    """Change some bytes of a file, or leave out or repeat a part of it."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(content)))
        new = draw(st.one_of(st.binary(max_size=8), st.sampled_from([b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 8])))
        gone = draw(st.sampled_from([len(new), len(new), 0, 1, 16, len(content)]))
        content[place : place + gone] = new
    return bytes(content)


# ---------------------------------------------------------------------------------------------- settings

VALID = {
    Settings: {
        "datasets": ["a"],
        "receptive_fields": [40],
        "seeds": [0, 1],
        "model": {"levels": 3},
        "training": {"patch_size": [32, 32], "max_minutes": 1.5},
        "prediction": {"samples": 2},
    },
    DatasetSettings: {
        "source": {"kind": "download", "registry": "a.csv"},
        "noisy": ["a*.tif"],
        "axes": "YX",
        "crop": {"y": [0, 9]},
        "noise_direction": "x",
        "simulate": {"kernel": [1.0, 0.5]},
        "training": {"images": "0:8", "block": 2},
        "evaluation": {"register": True, "data_range": 255},
    },
    MethodSettings: {
        "description": "a",
        "command": "{python} {noisy} {denoised}",
        "environment": "a.txt",
        "trains": True,
        "settings": {"a": [1, {"b": None}]},
        "candidates": [{"a": 1.5}, {}],
        "prediction_minutes": 2.5,
    },
}
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_subnormal=False),
    st.text(max_size=8),
    st.dates(),
    st.binary(max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers()), inner, max_size=4),
    ),
    max_leaves=6,
)


@st.composite
def altered(draw, valid: dict):
    """Replace, add or take away values somewhere in valid settings."""
    data = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        block = data
        while True:
            keys = list(block) if isinstance(block, dict) else range(len(block))
            key = draw(st.sampled_from([*keys, "added"] if isinstance(block, dict) else [*keys, 0]))
            inside = block[key] if key in keys else None
            if not (isinstance(inside, dict | list) and inside and draw(st.booleans())):
                break
            block = inside
        if isinstance(block, dict):
            block[key] = draw(VALUES)
        else:
            block.insert(key, draw(VALUES))
    return data


@pytest.mark.parametrize("kind", VALID, ids=lambda kind: kind.__name__)
@settings(fuzz, max_examples=300)
@given(data=st.data())
def test_any_settings_are_read_or_refused(folder, kind, data):
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(data.draw(altered(VALID[kind])), allow_unicode=True), errors="surrogatepass")
    with one_line_at_most():
        load_settings(kind, file)


@pytest.mark.parametrize("kind", VALID, ids=lambda kind: kind.__name__)
@settings(fuzz, max_examples=400)
@given(data=st.data())
def test_any_bytes_in_a_file_of_settings_are_read_or_refused(folder, kind, data):
    file = folder / "bytes.yaml"
    texts = [yaml.safe_dump(VALID[kind]).encode(), json.dumps(VALID[kind]).encode(), b"a: &a [*a]\nb: {<<: *a}\n"]
    file.write_bytes(data.draw(st.one_of(st.binary(max_size=60), damaged(texts))))
    with one_line_at_most():
        load_settings(kind, file)


def references(levels: int) -> str:
    return "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, levels))


@pytest.mark.parametrize(
    "text",
    [
        references(60),
        "seeds: &a [*a]",
        "[" * 1000,
        "seeds: [" + "9" * 5000 + "]",
        "seeds: [" + "9" * 400 + "]",
        "{" + ", ".join(f"k{i}: 1" for i in range(2000)) + "}",
        "training: {max_minutes: 2024-13-32}",
        '{results: "a\\0b"}',
        '{"\\ud800": 1}',
        "{1: 2, [3]: 4}",
        "!!python/object/apply:os.system [touch trapped]",
        "x" * 2**20,
    ],
    ids=lambda text: text[:20],
)
def test_a_trap_in_a_file_of_settings_is_refused(folder, monkeypatch, text):
    monkeypatch.chdir(folder)
    Path("trap.yaml").write_text(text)
    with pytest.raises(UserError, match=r"trap.yaml: "), in_time():
        load_settings(Settings, "trap.yaml")
    assert not Path("trapped").exists()


# ---------------------------------------------------------------------------------------------- images

PIXELS = np.random.default_rng(0).integers(0, 255, (3, 20, 24)).astype(np.uint8)


def packed(**options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, photometric="minisblack", **options)
    return file.getvalue()


TIFFS = [
    packed(),
    packed(compression="zlib", tile=(16, 16)),
    packed(imagej=True),
    packed(ome=True, metadata={"UUID": "00000000-0000-0000-0000-000000000001"}),  # a random one otherwise
    packed(bigtiff=True, byteorder=">"),
    packed(compression="jpeg"),
    packed(metadata=None, compression="lzw", predictor=True),
]
PNGS = [imageio.v3.imwrite("<bytes>", array, extension=".png") for array in (PIXELS[0], PIXELS.transpose(1, 2, 0))]


@settings(fuzz, max_examples=1000)
@given(content=damaged(TIFFS))
def test_any_damaged_tiff_is_read_or_refused(folder, content):
    (folder / "a.tif").write_bytes(content)
    with one_line_at_most():
        read_frames(folder / "a.tif", axes="CYX")


@settings(fuzz, max_examples=400)
@given(content=damaged(PNGS))
def test_any_damaged_png_is_read_or_refused(folder, content):
    (folder / "a.png").write_bytes(content)
    with one_line_at_most():
        read_frames(folder / "a.png", axes="YX")


@pytest.fixture(scope="module")
def canonical(folder):
    write_image(folder / "canonical.tif", PIXELS)
    return (folder / "canonical.tif").read_bytes()


@settings(fuzz, max_examples=300)
@given(data=st.data())
def test_any_damaged_canonical_image_is_read_or_refused(folder, canonical, data):
    (folder / "c.tif").write_bytes(data.draw(damaged([canonical])))
    with one_line_at_most():
        read_frame(folder / "c.tif")


def test_a_small_file_that_claims_to_hold_more_than_the_memory_is_refused(folder):
    tifffile.imwrite(folder / "bomb.tif", shape=(2000, 2000), dtype=np.uint8, photometric="minisblack")
    content = (folder / "bomb.tif").read_bytes()[:400]
    sides = (2000).to_bytes(4, "little")
    (folder / "bomb.tif").write_bytes(content.replace(sides, (10**5).to_bytes(4, "little")))
    with pytest.raises(UserError, match="it claims to contain 10000000000 bytes of pixels in a file of 400"):
        read_frames(folder / "bomb.tif", axes="YX")


def test_a_png_that_is_of_another_kind_is_refused(folder):
    (folder / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch) run\n")
    with pytest.raises(UserError, match="found a file of kind 'PostScript'"):
        read_frames(folder / "program.png", axes="YX")


# ---------------------------------------------------------------------------------------------- files of microscopes


@pytest.fixture(scope="module")
def whole_files(folder):
    """Return the content of a file of each format, by its suffix."""
    np.save(folder / "whole.npy", PIXELS)
    steps = dict.fromkeys("ZYX", ("m", 1e-7))
    files = {
        "npy": (folder / "whole.npy").read_bytes(),
        "lif": lif({"one": ("ZCYX", steps, np.stack([PIXELS, PIXELS], axis=1))}),
    }
    time = {"eType": 1, "uLoopPars": {"uiCount": 3, "dStart": 0.0, "dPeriod": 9.0, "dDuration": 27.0}}
    files["nd2"] = nd2(PIXELS[..., None], [time], ["GFP"], 0.25)
    files["png"] = png(24, 20, 16, 0, unfiltered(PIXELS[0].astype(np.uint16)))
    return files


@pytest.mark.parametrize("suffix", ["npy", "lif", "nd2", "png"])
@settings(fuzz, max_examples=300)
@given(data=st.data())
def test_any_damaged_file_of_a_microscope_is_read_or_refused(folder, whole_files, suffix, data):
    path = folder / f"a.{suffix}"
    path.write_bytes(data.draw(damaged([whole_files[suffix]])))
    with one_line_at_most(), open_sources(path) as sources:
        for source in sources:
            source.read()


@pytest.fixture(scope="module")
def whole_czi(folder):
    pytest.importorskip("pylibCZIrw", reason="unavailable: pylibCZIrw")
    write_czi(folder / "whole.czi", [PIXELS, PIXELS], "T", compression="zstd1:ExplicitLevel=1")
    return (folder / "whole.czi").read_bytes()


# Other damage can crash the library.
@settings(fuzz, max_examples=100)
@given(data=st.data())
def test_any_czi_file_that_breaks_off_is_read_or_refused(folder, whole_czi, data):
    (folder / "a.czi").write_bytes(whole_czi[: data.draw(st.integers(0, len(whole_czi)))])
    with one_line_at_most(), open_sources(folder / "a.czi") as sources:
        for source in sources:
            source.read()


@pytest.fixture(scope="module", params=[2, 3])
def store(folder, request):
    zarr = pytest.importorskip("zarr", reason="unavailable: zarr")
    group = zarr.create_group(folder / f"{request.param}.zarr", zarr_format=request.param)
    group.create_array("0", data=PIXELS, chunks=(1, 20, 24))
    multiscales = [{"axes": [{"name": axis} for axis in "tyx"], "datasets": [{"path": "0"}]}]
    group.attrs.update({"ome": {"multiscales": multiscales}} if request.param == 3 else {"multiscales": multiscales})
    return Path(group.store.root)


@settings(fuzz, max_examples=200)
@given(data=st.data())
def test_any_damaged_archive_of_a_zarr_store_is_read_or_refused(folder, store, data):
    whole = Path(shutil.make_archive(str(folder / f"{store.name}.whole"), "zip", store))
    (folder / "a.zip").write_bytes(data.draw(damaged([whole.read_bytes()])))
    with one_line_at_most(), open_sources(folder / "a.zip") as sources:
        for source in sources:
            source.read()


@settings(fuzz, max_examples=200)
@given(data=st.data())
def test_any_damaged_zarr_store_is_read_or_refused(store, data):
    path = data.draw(st.sampled_from(sorted(file for file in store.rglob("*") if file.is_file())))
    whole = path.read_bytes()
    path.write_bytes(data.draw(damaged([whole])))
    try:
        with one_line_at_most(), open_sources(store) as sources:
            for source in sources:
                source.read()
    finally:
        path.write_bytes(whole)


MANIFEST = b'image,noisy,clean,shape\na,noisy/a.tif,,1x8x9\n"b,\n",noisy/b.tif,clean/b.tif,2x8x9\n'


@settings(fuzz, max_examples=300)
@given(content=damaged([MANIFEST]))
def test_any_manifest_is_read_or_refused_and_names_no_file_elsewhere(folder, content):
    (folder / "manifest.csv").write_bytes(content)
    with one_line_at_most():
        assert not any("/" in image.name for image in read_manifest(folder))


# ---------------------------------------------------------------------------------------------- models


@pytest.fixture(scope="module")
def model(folder):
    save_model(DVLAE(Architecture(1, 4, 2, 2, 1, 3, 4, "x"), [1.0], [3.0], [0.5]), folder)
    return (folder / "weights.safetensors").read_bytes(), json.loads((folder / "model.json").read_text())


@settings(fuzz, max_examples=300)
@given(data=st.data())
def test_any_damaged_weights_are_refused_even_with_a_matching_hash(folder, model, data):
    weights, description = model
    (folder / "weights.safetensors").write_bytes(data.draw(damaged([weights, weights[:600]])))
    digest = sha256(folder / "weights.safetensors")
    (folder / "model.json").write_text(json.dumps(description | {"weights_sha256": digest}))
    with one_line_at_most():
        load_model(folder)


@settings(fuzz, max_examples=300)
@given(data=st.data())
def test_any_description_of_a_model_is_read_or_refused(folder, model, data):
    weights, description = model
    (folder / "weights.safetensors").write_bytes(weights)
    changed = data.draw(altered(description))
    (folder / "model.json").write_text(json.dumps(changed, default=str, skipkeys=True), errors="surrogatepass")
    with one_line_at_most():
        load_model(folder)


@pytest.mark.parametrize(
    "sizes",
    [{"levels": 10**9}, {"blocks": 10**9}, {"channels": 10**7}, {"components": 10**12}, {"image_channels": 10**8}],
    ids=str,
)
def test_sizes_that_would_fill_the_memory_are_refused(folder, model, sizes):
    weights, description = model
    (folder / "weights.safetensors").write_bytes(weights)
    changed = description | {"architecture": description["architecture"] | sizes}
    (folder / "model.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match="not a model that can be read"), in_time():
        load_model(folder)
