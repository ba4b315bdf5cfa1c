import numpy as np
import pytest

from dvlae.data.sources import open_sources
from dvlae.system.errors import UserError
from microscope_files import nd2

pytest.importorskip("nd2", reason="unavailable: nd2")
RANDOM = np.random.default_rng([0])
POINTS = {f"i{i:010}": {"dPosX": 1.0 * i, "dPosY": 0.0} for i in range(2)}
TIME = {"eType": 1, "uLoopPars": {"uiCount": 3, "dStart": 0.0, "dPeriod": 500.0, "dDuration": 1500.0}}
POSITIONS = {"eType": 2, "uLoopPars": {"uiCount": 2, "Points": POINTS}}
DEPTH = {"eType": 4, "uLoopPars": {"uiCount": 4, "dZLow": 0.0, "dZHigh": 1.5, "dZStep": 0.5}}


def array(*shape, dtype=np.uint16):
    return RANDOM.integers(0, 250, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_file_has_its_axes_channels_and_calibration(tmp_path, dtype):
    frames = array(24, 5, 6, 2, dtype=dtype)
    (tmp_path / "a.nd2").write_bytes(nd2(frames, [TIME, POSITIONS, DEPTH], ["DAPI", "GFP"], 0.25))
    expected = frames.reshape(3, 2, 4, 5, 6, 2).transpose(0, 1, 2, 5, 3, 4)
    with open_sources(tmp_path / "a.nd2") as (source,):
        assert (source.kind, source.axes, source.shape) == ("nd2", "TSZCYX", (3, 2, 4, 2, 5, 6))
        assert source.dtype == dtype
        assert source.calibration.sizes == {"x": 0.25, "y": 0.25, "z": 0.5}
        assert source.calibration.unit == "um"
        assert source.calibration.time_step == 0.5
        assert source.calibration.channels == ("DAPI", "GFP")
        assert not source.notes
        for index in [(), (2,), (2, 1), (2, 1, 3), (2, 1, 3, 1), (2, 1, 3, 1, 4)]:
            assert np.array_equal(source.read(index), expected[index])


def test_one_plane_and_colours(tmp_path):
    frames = array(1, 5, 6, 3)
    (tmp_path / "a.nd2").write_bytes(nd2(frames, [], ["Brightfield"], None))
    with open_sources(tmp_path / "a.nd2") as (source,):
        assert (source.axes, source.calibration.sizes) == ("YXC", {})
        assert np.array_equal(source.read(), frames[0])


def test_planes_that_were_not_recorded_are_said(tmp_path):
    (tmp_path / "a.nd2").write_bytes(nd2(array(2, 5, 6, 1), [TIME], ["GFP"], 0.25))
    with open_sources(tmp_path / "a.nd2") as (source,):
        assert source.notes == ("only 2 of 3 planes were recorded; the others are read as 0",)
        assert not source.read((2,)).any()


def test_a_file_that_breaks_off_is_refused(tmp_path):
    content = nd2(array(2, 5, 6, 1), [TIME], ["GFP"], 0.25)
    for kept in (4, 200, 5000, len(content) - 1):
        (tmp_path / "a.nd2").write_bytes(content[:kept])
        with pytest.raises(UserError, match=r"a\.nd2: "), open_sources(tmp_path / "a.nd2"):
            pass
