"""Each step that works on images: what it writes does not depend on the number of threads."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from scipy import ndimage

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.canonical import read_noisy, write_image
from dvlae.data.manifest import Image, read_manifest, write_manifest
from dvlae.evaluation import each_image
from dvlae.evaluation.each_image import choose_image_workers, map_images
from dvlae.evaluation.evaluate import evaluate
from dvlae.evaluation.register import Targets, register
from dvlae.methods.run import run_method
from dvlae.system.errors import UserError

# Images of three sizes and a volume; one has no clean image.
SHAPES = [(2, 60, 50), (2, 40, 45), (2, 64, 64), (2, 3, 30, 32), (2, 50, 41)]
WITHOUT_CLEAN = 1
SETTINGS = EvaluationSettings(register=True, fit="clean_to_noisy")


@pytest.fixture
def images(tmp_path):
    random = np.random.default_rng(0)
    folder, rows = tmp_path / "images", []
    for i, shape in enumerate(SHAPES):
        smooth = (0, *[2] * (len(shape) - 1))
        clean = 100 + 20 * ndimage.gaussian_filter(random.normal(size=shape), smooth)
        name = f"a {i}"
        image = Image(
            name, folder / f"noisy/{name}.tif", None if i == WITHOUT_CLEAN else folder / f"clean/{name}.tif", shape
        )
        write_image(image.noisy, clean + random.normal(size=shape))
        if image.clean:
            write_image(image.clean, clean)
        rows.append(image)
    write_manifest(folder, rows)
    return folder


@pytest.fixture
def use_workers(monkeypatch):
    """Return a function that fixes the number of threads, however many cores there are."""

    def fix(count):
        monkeypatch.setattr(each_image, "choose_workers", lambda *_, **__: count)

    return fix


@pytest.mark.parametrize("method", ["noisy", "gaussian", "bm3d"])
@pytest.mark.usefixtures("weak_bm3d")
def test_a_comparison_has_the_same_bytes_for_any_number_of_workers(images, tmp_path, use_workers, method):
    results = []
    for workers in (1, 2, 3):
        use_workers(workers)
        run = tmp_path / f"run{workers}"
        register(images, run / "targets.csv", settings=SETTINGS)
        run_method(method, images, run / "denoised", settings=SETTINGS)
        evaluate(
            images, run / "denoised", run / "psnr.csv",
            dataset="made up", method=method, receptive_field=None, seed=0, settings=SETTINGS,
        )  # fmt: skip
        names = sorted(path.relative_to(run) for path in run.rglob("*.*") if path.suffix in (".csv", ".tif"))
        assert len(names) == (0 if method == "noisy" else len(SHAPES)) + 2
        results.append([(name, (run / name).read_bytes()) for name in names])
    assert results[0] == results[1] == results[2]


def test_results_come_in_the_order_of_the_images_although_a_later_one_is_done_first(images):
    chosen, later_done = read_manifest(images), threading.Event()

    def name(image):
        if image.name == chosen[0].name:
            assert later_done.wait(timeout=60)
        if image.name == chosen[1].name:
            later_done.set()
        return image.name

    assert map_images(name, chosen, 2, description="names") == [image.name for image in chosen]


def test_an_error_in_a_thread_ends_the_step_and_leaves_the_others_undone(images):
    chosen, seen = read_manifest(images) * 10, []

    def fail(image):
        seen.append(image.name)
        raise UserError(image.name)

    with pytest.raises(UserError, match=chosen[0].name):
        map_images(fail, chosen, 2, description="fail")
    assert len(seen) < len(chosen)


def test_an_unreadable_image_leaves_no_output(images, tmp_path, use_workers):
    use_workers(3)
    read_manifest(images)[2].noisy.write_bytes(b"")
    run_method("gaussian", images, tmp_path / "run" / "denoised", settings=SETTINGS)
    record = json.loads((tmp_path / "run" / "method.json").read_text())
    assert record["status"] == "failed" and "a 2.tif" in record["reason"]
    assert not list((tmp_path / "run" / "denoised").iterdir())


def test_threads_share_the_targets_of_an_image(images):
    image = read_manifest(images)[0]
    noisy, targets = read_noisy(image), Targets(SETTINGS)
    found = map_images(lambda image: targets.target(image, noisy), [image] * 6, 3, description="targets")
    expected = Targets(SETTINGS).target(image, noisy)
    for target in found:
        np.testing.assert_array_equal(target.clean, expected.clean)


def test_the_memory_of_a_worker_grows_with_the_largest_image(images, monkeypatch):
    asked = {}
    monkeypatch.setattr(each_image, "choose_workers", lambda step, most, **options: asked.update(options, most=most))
    choose_image_workers("register", read_manifest(images), cores=2)
    largest = max(np.prod(shape) for shape in SHAPES)
    assert asked == {"most": len(SHAPES), "cores": 2, "memory": 140 * largest + 2**27}


def test_bm3d_asks_for_memory_for_one_plane_more_than_a_gaussian_filter(images, tmp_path, monkeypatch, weak_bm3d):
    asked = []
    monkeypatch.setattr(each_image, "choose_workers", lambda *_, memory, **__: asked.append(memory) or 1)
    for method in ("gaussian", "bm3d"):
        run_method(method, images, tmp_path / method / "denoised", settings=SETTINGS)
    assert asked[1] - asked[0] == 600 * 64 * 64


def test_the_command_computes_matrix_products_in_one_thread(images, tmp_path):
    code = (
        "import os, sys, threading; from dvlae.cli import main; code = main(sys.argv[1:]);"
        "print(len(os.listdir('/proc/self/task')) - threading.active_count(), code)"
    )
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("unavailable: this system does not list threads in /proc")
    options = ["register", images, tmp_path / "targets.csv", "--settings", SETTINGS.model_dump_json(), "--cores", "1"]
    command = [sys.executable, "-c", code, *map(str, options)]
    several = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2")
    run = subprocess.run(command, env=os.environ | several, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0", "0"]
