import io

import numpy as np
import pytest
import torch

from dvlae.config.settings import PredictionSettings
from dvlae.inference.direct import denoise_directly
from dvlae.inference.export.network import ExportedDenoiser
from untrained import build, noisy

# A thousandth of the noise, which is that of a Poisson distribution of mean 60.
TOLERANCE = 1e-3 * 60**0.5
SIDES = {1: (53,), 2: (27, 37), 3: (17, 9, 13)}


def ours(model, image):
    return denoise_directly(
        model, image, name="test", settings=PredictionSettings(estimator="direct", flips=False, shifts=1)
    )


@pytest.mark.parametrize(
    "sizes",
    [
        {"dimensions": 1},
        {"dimensions": 2},
        {"dimensions": 3},
        {"levels": 4, "levels_per_scale": 2, "channels": 3, "blocks": 2},
        {"stride": (2, 8)},
        {"dimensions": 3, "stride": (1, 8, 8)},
        {"levels": 1},
        {"levels": 2, "levels_per_scale": 3},
    ],
    ids=str,
)
def test_a_trace_computes_what_dvlae_does_whatever_the_number_and_the_sides_of_the_images(sizes):
    model = build(direct_denoiser="mean", **sizes)
    sides, channels = SIDES[sizes.get("dimensions", 2)], sizes.get("channels", 1)
    seen = torch.from_numpy(noisy(*[16] * len(sides), channels=channels))[None]
    trace = torch.jit.trace(ExportedDenoiser(model), seen, check_trace=False)
    image = noisy(*sides, channels=channels)
    pair = np.stack([image, image[..., ::-1]])
    for found, each in zip(trace(torch.from_numpy(pair)).numpy(), pair, strict=True):
        np.testing.assert_allclose(found, ours(model, each), rtol=0, atol=TOLERANCE)


def test_a_trace_runs_on_another_device_than_that_on_which_it_was_made():
    images = torch.from_numpy(noisy(20, 24))[None]
    trace = torch.jit.trace(ExportedDenoiser(build(direct_denoiser="mean")), images, check_trace=False)
    file = io.BytesIO()
    torch.jit.save(trace, file)
    file.seek(0)
    assert torch.jit.load(file, map_location="meta")(images.to("meta")).shape == images.shape


@pytest.mark.parametrize("sizes", [{}, {"stride": (1, 4)}, {"levels": 3, "levels_per_scale": 2}], ids=str)
def test_a_tile_equals_the_complete_image_if_it_begins_on_the_grid_and_overlaps_by_the_reach(sizes):
    network = ExportedDenoiser(build(direct_denoiser="mean", **{"levels": 2} | sizes))
    places, inner = [slice(None)] * 2, [slice(None)] * 2
    for stride, reach in zip(network.stride, network.reach, strict=True):
        places.append(slice(stride, 9 * stride + 2 * reach))
        inner.append(slice(reach, reach + 8 * stride))
    image = torch.from_numpy(noisy(*(place.stop + 16 for place in places[2:])))[None]
    whole, tile = network(image)[tuple(places)], network(image[tuple(places)])
    np.testing.assert_allclose(tile[tuple(inner)], whole[tuple(inner)], rtol=0, atol=TOLERANCE)
    assert (tile - whole).abs().max() > TOLERANCE, "the edges of the tile do not matter"


def test_the_halo_is_the_reach_unless_that_is_long():
    shallow, deep = (ExportedDenoiser(build(levels=levels, direct_denoiser="mean")) for levels in (1, 5))
    assert (shallow.halo, shallow.smallest) == (shallow.reach, (54, 54))
    assert deep.reach > deep.halo == (64, 64)
    assert deep.smallest == (160, 160)
