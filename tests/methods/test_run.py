import json

import pytest

from dvlae.config.dataset import EvaluationSettings
from dvlae.data.manifest import read_manifest
from dvlae.data.outputs.folder import join_folders
from dvlae.methods.run import BASELINES, run_method
from dvlae.runs.gather import gather
from dvlae.system.errors import UserError
from dvlae.system.parts import Part


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.usefixtures("weak_bm3d")
def test_every_baseline_writes_an_estimate_of_each_image_in_its_shape(method, make_images, denoise):
    images = make_images()
    estimates = denoise(method, images)
    assert {name: e.shape for name, e in estimates.items()} == {i.name: i.shape for i in read_manifest(images)}
    files = ["the-noisy-images.txt"] if method == "noisy" else ["b 0.tif", "b 1.tif"]
    assert sorted(p.name for p in (images.parent / "run" / "denoised").iterdir()) == files


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.usefixtures("weak_bm3d")
def test_any_number_of_parts_gives_the_same_bytes_and_parameters(method, make_images, tmp_path, count):
    images, settings = make_images(), EvaluationSettings(data_range=1)
    run_method(method, images, tmp_path / "whole/denoised", settings=settings)
    parts = [tmp_path / f"{number}-of-{count}" for number in range(1, count + 1)]
    for folder in parts:
        run_method(method, images, folder / "denoised", settings=settings, part=Part.parse(folder.name))
    gather(parts, [tmp_path / "joined/denoised", tmp_path / "joined/method.json"], join_folders)
    whole, joined = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "denoised").iterdir()}
        for name in ("whole", "joined")
    )
    assert whole == joined
    records = [json.loads((tmp_path / name / "method.json").read_text()) for name in ("whole", "joined")]
    assert records[0] | {"seconds": 0} == records[1] | {"seconds": 0}


def test_an_unknown_baseline_is_refused_with_those_there_are(make_images, denoise):
    with pytest.raises(UserError, match="found 'bm5d', allowed: noisy, gaussian, bm3d"):
        denoise("bm5d", make_images())
