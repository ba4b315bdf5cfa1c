import pytest

from dvlae.data.manifest import read_manifest
from dvlae.evaluation.baselines import BASELINES
from dvlae.system.errors import UserError


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.usefixtures("weak_bm3d")
def test_every_baseline_writes_an_estimate_of_each_image_in_its_shape(method, make_images, denoise):
    images = make_images()
    estimates = denoise(method, images)
    assert {name: e.shape for name, e in estimates.items()} == {i.name: i.shape for i in read_manifest(images)}
    assert sorted(p.name for p in (images.parent / "run" / "denoised").iterdir()) == ["b 0.tif", "b 1.tif"]


def test_an_unknown_baseline_is_refused_with_those_there_are(make_images, denoise):
    with pytest.raises(UserError, match="found 'bm5d', allowed: noisy, gaussian, bm3d"):
        denoise("bm5d", make_images())
