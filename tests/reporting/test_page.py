import html.parser
import json
import re
from dataclasses import replace

import imagecodecs
import matplotlib
import numpy as np
import pytest
from scipy import ndimage

from browser import look
from dvlae.config.dataset import EvaluationSettings
from dvlae.config.messages import validate
from dvlae.config.settings import PatchSettings, PredictSettings, TrainSettings
from dvlae.data.canonical import read_frame, set_offset, write_frames, write_image
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.data.patches import extract_patches
from dvlae.data.sources import Calibration, SourceInfo
from dvlae.inference.prediction import predict
from dvlae.reporting.diagnosis import diagnose
from dvlae.reporting.page import views, write_page
from dvlae.reporting.page.markup import encode_png
from dvlae.reporting.page.measurements import Measurement, find_doubt
from dvlae.system.errors import UserError
from dvlae.system.hardware.devices import processor_name
from dvlae.training.train import train

SCRIPT = "<script>alert(1)</script> & \"a\" 'b'"
MAX_BYTES = 10_000_000


class Page(html.parser.HTMLParser):
    """The elements of a page, with what is referenced, fetched, and said in each."""

    VOID = ("meta", "img", "input", "link", "br")

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements, self.open, self.text = [], [], {}
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, attribute):
        return [values[attribute] for _, values in self.elements if attribute in values]

    def count(self, tag):
        return sum(name == tag for name, _ in self.elements)

    def said(self, tag):
        return " ".join(" ".join(self.text.get(tag, [])).split())


def noisy_image(*shape, seed=0):
    random = np.random.default_rng(seed)
    signal = 100 + 200 * ndimage.gaussian_filter(random.normal(size=shape), 3, axes=range(1, len(shape)))
    noise = ndimage.correlate1d(random.normal(size=shape), [1, 1], axis=-1)
    return signal.astype(np.float32), (signal + 4 * noise).astype(np.float32)


@pytest.fixture
def denoised(tmp_path):
    """Return a function that writes noisy images of some shapes, estimates and a diagnosis, and returns their paths."""

    def make(*shapes, clean=False, channels=(), deviation=True, names=None):
        images, rows = tmp_path / "images", []
        for number, shape in enumerate(shapes):
            name = names[number] if names else f"image {number}"
            signal, noisy = noisy_image(*shape, seed=number)
            path, clean_path = images / f"noisy/{number}.tif", images / f"clean/{number}.tif" if clean else None
            info = SourceInfo.of_frames(shape)
            calibration = Calibration(channels=channels)
            write_frames(path, replace(info, calibration=calibration), [noisy], noisy.dtype)
            if clean:
                write_image(clean_path, signal)
            write_image(tmp_path / f"denoised/{number}.tif", signal)
            if deviation:
                write_image(tmp_path / f"uncertainty/{number}.tif", np.abs(noisy - signal) / 4)
            rows.append(Image(name, path, clean_path, shape))
        write_manifest(images, rows)
        diagnose(images, tmp_path / "noise.json", dataset="test", noise_direction="x", settings=EvaluationSettings())
        paths = {name: tmp_path / name for name in ("images", "denoised", "uncertainty")}
        return paths | {"diagnosis": tmp_path / "noise.json"}

    return make


@pytest.fixture
def make_page(tmp_path):
    def make(paths, **others):
        usual = {"title": "A page", "model": None, "warnings": [], "preview": False}
        write_page(tmp_path / "page.html", **paths | usual | others)
        page = Page(tmp_path / "page.html")
        check(page)
        return page

    return make


def check(page):
    """Check what holds for every page."""
    ids = page.all("id")
    assert len(set(ids)) == len(ids)
    for attribute in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
        assert set(page.all(attribute)) <= set(ids)
    assert set(page.all("value")) - {"50"} <= set(ids)
    assert set(re.findall(r'getElementById\("([\w-]+)"\)', page.source)) <= set(ids)
    assert all(value.startswith("data:image/") for value in page.all("src"))
    assert page.all("href") == [] and page.count("link") == 0
    assert not re.search(r"""url\(|@import|https?://""", page.source)
    assert all(values.get("alt") for tag, values in page.elements if tag == "img")
    assert len(page.source) < MAX_BYTES


def run_training(folder, images, steps=4):
    """Train a tiny model and denoise with it."""
    extract_patches(images, folder / "patches", validate(PatchSettings, {"patch_size": 16, "stride": 4}, "test"))
    model = {"levels": 2, "channels": 8, "latent_channels": 4}
    training = {"patch_size": 16, "batch_size": 2, "max_steps": steps}
    settings = validate(TrainSettings, {"model": model, "training": training, "device": "cpu"}, "test")
    how = {"receptive_field": 4, "noise_direction": "x", "checkpoints": None, "cores": 1}
    train(folder / "patches", folder / "model", seed=3, settings=settings, **how)
    settings = validate(PredictSettings, {"prediction": {"samples": 2}, "device": "cpu"}, "test")
    predict(folder / "model", images, folder / "denoised", folder / "uncertainty", seed=5, settings=settings, cores=1)


def test_a_page_of_a_real_run_says_what_its_records_say(tmp_path, images_folder, make_page):
    images = images_folder(**{f"a {number}": noisy_image(1, 40, 48, seed=number)[1] for number in range(3)})
    run_training(tmp_path, images)
    diagnose(images, tmp_path / "noise.json", dataset="test", noise_direction="x", settings=EvaluationSettings())
    paths = {name: tmp_path / name for name in ("images", "denoised", "uncertainty", "model")}
    page = make_page({}, **paths, diagnosis=tmp_path / "noise.json", warnings=["A warning."])
    record = json.loads((tmp_path / "model/run.json").read_text())
    assert f"{record['seconds'] / 60:.1f} minutes, on {processor_name()}, 4 steps, ended by max_steps" in page.said(
        "dd"
    )
    cells = page.said("td")
    for text in ("model.channels 8", "seed 3 5", f"versions.torch {record['versions']['torch']}", "samples 2"):
        assert text in cells
    assert f"--model {tmp_path}/model" in page.said("code")
    assert "A warning." in page.said("li")
    assert [label for label in page.text["option"] if label.strip()] == ["a 0", "a 1", "a 2"]
    # Four images of each view, the noise and the training.
    assert page.count("img") == 3 * 4 + 2
    assert "PSNR" not in page.said("dt") and "preview" not in page.said("strong")


def test_a_preview_says_so_and_after_what_time(tmp_path, denoised, make_page):
    paths = denoised((1, 40, 48))
    model = tmp_path / "model"
    model.mkdir()
    (model / "run.json").write_text(json.dumps({"seconds": 90, "device": "cpu", "steps": 10, "stopped_by": None}))
    page = make_page(paths, preview=True, model=model)
    assert page.said("strong") == "This is a preview after 1.5 minutes of training."
    assert page.said("title") == page.said("h1") == "Preview: A page"
    assert "1.5 minutes, on cpu, 10 steps" in page.said("dd") and "None" not in page.said("dd")
    assert page.said("code") == ""
    assert f"--model {tmp_path}/kept FILES" in make_page(paths, model=model, kept=tmp_path / "kept").said("code")
    assert make_page(paths, preview=True).said("strong") == "This is a preview."


def test_text_of_the_user_is_shown_as_it_is(denoised, make_page, tmp_path):
    name = "<script>alert(1)'&quot;"
    page = make_page(
        denoised((2, 30, 30), channels=(SCRIPT, "$x$"), names=[name]),
        title=SCRIPT,
        warnings=[SCRIPT],
        model=tmp_path / SCRIPT.replace("/", "_"),
    )
    assert page.count("script") == 1
    assert page.said("h1") == SCRIPT and SCRIPT in page.text["li"]
    assert name in page.said("h3") and name in page.said("option") and name in page.said("td")
    assert f"channel 0 ({SCRIPT})" in page.said("h3") and "channel 1 ($x$)" in page.said("h3")


def test_psnr_is_given_only_where_there_are_clean_images(denoised, make_page):
    page = make_page(denoised((1, 40, 48), (1, 40, 48), clean=True))
    assert re.search(r"[\d.]+( to [\d.]+)? dB before, inf dB after, against the clean images", page.said("dd"))
    assert "noisy − clean" in page.said("dd") and "(register: false, fit: none)" in page.said("dd")


def test_the_noise_before_and_what_was_removed_are_measured(denoised, make_page):
    paths = denoised((1, 200, 200), clean=True)
    known = make_page(paths).said("dd")
    levels = [float(number) for number in re.findall(r"standard deviation ([\d.]+) grey values", known)]
    # Four times noise that is the sum of two values.
    assert levels == pytest.approx([4 * 2**0.5] * 2, rel=0.03)
    assert "correlate 0.50 along x" in known and "They agree." in known
    estimated = make_page(denoised((1, 200, 200))).said("dd")
    assert float(re.search(r"standard deviation ([\d.]+)", estimated)[1]) == pytest.approx(4 * 2**0.5, rel=0.1)
    assert "estimated from the noisy images" in estimated


def test_signal_in_what_was_removed_is_told(denoised, make_page, tmp_path):
    paths = denoised((1, 200, 200))
    _, noisy = noisy_image(1, 200, 200)
    write_image(tmp_path / "denoised/0.tif", np.full_like(noisy, noisy.mean()))
    said = make_page(paths).said("dd")
    assert "it may contain signal" in said and "look for structure" in said


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ((0.0, 0.0), "nothing was removed"),
        ((1.0, 1.2), "what was removed is only 0.55 times as strong as the noise: some noise may be left"),
        ((1.7, 2.1, 9.0), None),
        ((2.2, 2.5), None),
        ((3.0, 3.0), "what was removed is 1.50 times as strong as the noise: it may contain signal"),
    ],
)
def test_another_amount_than_the_noise_in_most_frames_is_doubtful(removed, said):
    found = [Measurement("image", "", noise=2.0, removed=value, correlation={}) for value in removed]
    assert find_doubt(found) == said
    assert find_doubt([replace(one, noise=None) for one in found]) is None


def test_few_frames_of_many_are_shown_evenly_spread(denoised, make_page):
    page = make_page(denoised(*[(1, 24, 24)] * 9))
    assert [text for text in page.text["option"] if text.strip()] == [f"image {number}" for number in (0, 2, 4, 6, 8)]
    assert "9; 5 of them, evenly spread, are shown" in page.said("dd")


def test_frames_that_were_left_as_they_are_are_not_shown(denoised, make_page, tmp_path):
    paths = denoised((1, 24, 24), (1, 24, 24), (1, 24, 24))
    found = {"unchanged": {"image 0": "blank"}, "hot_pixels": {"image 1": 7}, "unseen": {}, "rescaled": {}}
    (tmp_path / "prediction.json").write_text(json.dumps({"seed": 1, "found": found}))
    page = make_page(paths)
    assert "image 0" not in page.said("option")
    assert [values["value"] for _, values in page.elements if "selected" in values] == ["view-0"]
    assert "1 left as it was" in page.said("dd")
    assert "7 hot or dead pixel values" in page.said("td")


def test_a_volume_shows_three_planes(denoised, make_page):
    page = make_page(denoised((1, 12, 24, 30)))
    labels = [text for text in page.text["option"] if text.strip()]
    assert labels == [f"image 0, plane {plane} of 0 to 11" for plane in (2, 6, 10)]
    assert [values["value"] for _, values in page.elements if "selected" in values] == ["view-1"]


def test_a_thin_volume_shows_each_plane_once(denoised, make_page):
    labels = [text for text in make_page(denoised((1, 2, 24, 30))).text["option"] if text.strip()]
    assert labels == [f"image 0, plane {plane} of 0 to 1" for plane in (0, 1)]


@pytest.mark.parametrize(
    ("channels", "names", "labels"),
    [
        (3, (), ["image 0"]),
        (2, (), ["image 0, channel 0", "image 0, channel 1"]),
        (3, ("A", "B", "C"), [f"image 0, channel {n} ({name})" for n, name in enumerate("ABC")]),
        (9, (), [f"image 0, channel {n}" for n in range(4)]),
    ],
)
def test_three_channels_without_names_are_colours_and_others_a_choice(denoised, make_page, channels, names, labels):
    page = make_page(denoised((channels, 24, 30), channels=names))
    assert [text for text in page.text["option"] if text.strip()] == labels
    assert [values["value"] for _, values in page.elements if "selected" in values] == ["view-0"]


def test_the_number_of_views_is_bounded(denoised, make_page):
    page = make_page(denoised(*[(3, 9, 20, 20)] * 6, channels=("A", "B", "C")))
    assert page.source.count('class="view"') == 9


@pytest.mark.parametrize("channels", [1, 2])
def test_traces_are_plotted(denoised, make_page, channels):
    page = make_page(denoised((channels, 300)))
    assert page.source.count('class="pane"') == 0
    assert "before and after" in page.all("alt")[0]
    assert "not known: of traces without clean ones" in page.said("dd")


def test_an_image_without_uncertainty_says_why(denoised, make_page):
    page = make_page(denoised((1, 24, 24), deviation=False))
    assert page.source.count('class="pane"') == 3
    assert "at least two samples" in page.said("p")


def test_of_a_large_image_the_most_structured_part_is_shown(denoised, make_page, monkeypatch):
    monkeypatch.setattr(views, "MAX_PIXELS", 2400)
    page = make_page(denoised((1, 90, 120)))
    assert 'data-shape="48 x 50"' in page.source
    rows, columns = re.search(r"y (\d+ to \d+) and x (\d+ to \d+) of 90 x 120 pixels", page.said("p")).groups()
    for text, side in ((rows, 48), (columns, 50)):
        first, last = map(int, text.split(" to "))
        assert last - first + 1 == side


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1, 90), (1, 90, 1), (1, 5, 5), (1, 1, 1), (1, 1), (1, 1, 9, 9), (1, 3, 1, 1)])
def test_images_of_any_size_are_shown(denoised, make_page, monkeypatch, shape):
    monkeypatch.setattr(views, "MAX_PIXELS", 40)
    said = make_page(denoised(shape)).said("dd")
    # So few pixels say nothing about a correlation.
    assert "correlate" not in said


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [1e-12, 1e9])
def test_grey_values_of_any_size_are_written_with_few_digits(denoised, make_page, tmp_path, factor):
    paths = denoised((1, 30, 30))
    for path in (tmp_path / "images/noisy/0.tif", tmp_path / "denoised/0.tif", tmp_path / "uncertainty/0.tif"):
        write_image(path, read_frame(path) * factor)
    levels = re.findall(r"standard deviation (\S+) grey values", make_page(paths).said("dd"))
    assert len(levels) == 2 and all(len(level) <= 8 for level in levels)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [7.0, np.nan])
def test_blank_images_and_those_without_numbers_are_shown(denoised, make_page, tmp_path, value):
    paths = denoised((1, 30, 30), (1, 30, 30))
    blank = np.full((1, 30, 30), value)
    mask = tmp_path / "images/mask.tif"
    write_image(mask, np.isfinite(blank))
    for number in range(2):
        write_image(tmp_path / f"images/noisy/{number}.tif", blank)
        write_image(tmp_path / f"denoised/{number}.tif", blank)
    write_manifest(tmp_path / "images", [replace(one, mask=mask) for one in read_manifest(tmp_path / "images")])
    page = make_page(paths)
    assert "standard deviation 0 grey values" in page.said("dd")
    assert "nan" not in page.said("span") + page.said("dd") + page.said("td")


def test_a_flat_estimate_is_shown_with_the_grey_values_of_the_noisy_image(denoised, make_page, tmp_path):
    paths = denoised((1, 60, 60))
    noisy = noisy_image(1, 60, 60)[1]
    write_image(tmp_path / "denoised/0.tif", np.full_like(noisy, 100))
    black = float(re.findall(r'<span>([\d.]+)</span><span class="bar"', make_page(paths).source)[0])
    assert black == pytest.approx(np.percentile(noisy, 0.2), abs=0.5)


def test_an_estimate_that_removed_nothing_is_told(denoised, make_page, tmp_path):
    paths = denoised((1, 60, 60))
    write_image(tmp_path / "denoised/0.tif", noisy_image(1, 60, 60)[1])
    assert "Nothing was removed." in make_page(paths).said("dd")


def test_grey_values_of_the_scale_are_those_of_the_file(denoised, make_page, tmp_path):
    paths = denoised((1, 40, 40))
    pattern = r'<span>([\d.]+)</span><span class="bar"'
    before = re.findall(pattern, make_page(paths).source)[0]
    values = noisy_image(1, 40, 40)
    for path, one in ((tmp_path / "images/noisy/0.tif", values[1]), (tmp_path / "denoised/0.tif", values[0])):
        write_image(path, one + 4000)
    set_offset(tmp_path / "images/noisy/0.tif", 4000)
    after = re.findall(pattern, make_page(paths).source)[0]
    assert float(after) == pytest.approx(float(before) + 4000, abs=0.2)


@pytest.mark.parametrize("content", [None, "no JSON", "[]", "{}"])
def test_another_file_than_a_diagnosis_is_refused_in_one_line(denoised, make_page, content):
    paths = denoised((1, 24, 24))
    if content is None:
        paths["diagnosis"].unlink()
    else:
        paths["diagnosis"].write_text(content)
    with pytest.raises(UserError, match=r"noise\.json: not what dvlae diagnose writes"):
        make_page(paths)


def test_a_picture_with_a_palette_has_the_colours_of_its_colour_map():
    values = np.linspace(0, 1, 256).reshape(8, 32)
    pixels = imagecodecs.png_decode(encode_png(values, "PuOr"))[..., :3]
    expected = 255 * matplotlib.colormaps["PuOr"](np.arange(256))[:, :3]
    assert np.abs(pixels.reshape(256, 3) - expected).max() <= 0.5


def test_names_of_another_encoding_are_shown_with_question_marks(denoised, make_page):
    assert make_page(denoised((1, 24, 24)), title="caf\udce9").said("h1") == "caf?"


def test_equal_runs_give_equal_pages(denoised, make_page):
    paths = denoised((1, 24, 24))
    assert make_page(paths).source == make_page(paths).source


def test_images_move_together_and_the_divider_moves(denoised, make_page, tmp_path):
    make_page(denoised((1, 40, 48), (1, 30, 48)))
    found = look(
        tmp_path / "page.html",
        """
        const all = selector => [...document.querySelectorAll(selector)];
        const shown = () => all(".view").filter(view => view.offsetParent).map(view => view.id);
        const part = (image, whole) => {
          const [a, b] = [image, whole].map(element => element.getBoundingClientRect());
          const values = [(a.left - b.left) / b.width, (a.top - b.top) / b.height, a.width / b.width];
          return values;
        };
        const state = () => all(`#${shown()[0]} .pane`).map(pane => part(pane.firstElementChild, pane));
        const result = {first: shown(), start: state()};
        const group = document.querySelector(".compare");
        group.dispatchEvent(new KeyboardEvent("keydown", {key: "+"}));
        result.zoomed = state();
        group.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
        result.moved = state();
        document.querySelector("[data-divider='0']").click();
        result.clip = getComputedStyle(document.querySelector(".after .pane")).clipPath;
        const choice = document.getElementById("choice");
        choice.value = "view-1";
        choice.dispatchEvent(new Event("change"));
        result.second = shown();
        result.reset = state();
        return result;
        """,
    )
    assert found["first"] == ["view-0"] and found["second"] == ["view-1"]
    for name, place in {"start": [0, 0, 1], "zoomed": [-0.125, -0.125, 1.25], "moved": [-0.225, -0.125, 1.25]}.items():
        assert np.array(found[name]) == pytest.approx(np.array([place] * 4), abs=0.01)
    assert np.array(found["reset"]) == pytest.approx(np.array([[0, 0, 1]] * 4), abs=0.01)
    assert found["clip"] == "inset(0px 0px 0px 0%)"


def test_pointers_move_and_zoom_the_images_and_move_the_divider(denoised, make_page, tmp_path):
    make_page(denoised((1, 40, 48)))
    found = look(
        tmp_path / "page.html",
        """
        // Events that a script makes have no pointer that could be captured.
        Element.prototype.setPointerCapture = () => {};
        Element.prototype.hasPointerCapture = () => true;
        const views = document.getElementById("views").style;
        const state = () => ["--x", "--y", "--zoom", "--divider"].map(name => Number(views.getPropertyValue(name)));
        const pane = document.querySelector(".before .pane"), box = pane.getBoundingClientRect();
        const send = (target, kind, id, x, y) => target.dispatchEvent(new PointerEvent(kind, {
          pointerId: id, clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true,
        }));
        const wheel = () => pane.dispatchEvent(new WheelEvent("wheel", {
          deltaY: -100, clientX: box.left, clientY: box.top, cancelable: true,
        }));
        const result = {};
        wheel();
        result.scrolled = state();
        document.querySelector(".compare").focus({preventScroll: true});
        wheel();
        result.wheel = state();
        send(pane, "pointerdown", 1, 0.5, 0.5);
        send(pane, "pointermove", 1, 0.4, 0.5);
        result.drag = state();
        send(pane, "pointerdown", 2, 0.6, 0.5);
        send(pane, "pointermove", 2, 0.8, 0.5);
        result.pinch = state();
        send(pane, "pointerup", 1, 0, 0);
        send(pane, "pointerup", 2, 0, 0);
        send(pane, "pointermove", 1, 0, 0);
        result.end = state();
        send(document.querySelector(".divider"), "pointermove", 3, 0.3, 0.5);
        result.divider = state();
        return result;
        """,
    )
    zoom = np.exp(0.25)
    assert found["scrolled"] == [0, 0, 1, 50]
    assert found["wheel"] == pytest.approx([0, 0, zoom, 50])
    assert found["drag"] == pytest.approx([-0.1, 0, zoom, 50])
    assert found["pinch"][2] == pytest.approx(2 * zoom)
    assert found["end"] == found["pinch"]
    assert found["divider"] == pytest.approx([*found["end"][:3], 30], abs=0.5)


def test_of_traces_only_the_choice_is_offered(denoised, make_page, tmp_path):
    make_page(denoised((1, 90), (1, 90)))
    controls = '[...document.querySelectorAll(".controls > *")]'
    shown = f"return {controls}.filter(one => one.offsetParent).map(one => one.innerText)"
    (shown,) = look(tmp_path / "page.html", shown)
    assert shown.startswith("Image")
