import sys
from types import SimpleNamespace

import pytest

from dvlae.system.errors import UserError
from dvlae.training.displays import TensorBoard

pytest.importorskip("tensorboard", reason="TensorBoard is an optional extra")


def write(folder, *rows, steps=0):
    """Show a training that has come to ``steps`` before, and goes on with these rows."""
    training = SimpleNamespace(steps=steps, history=[])
    tensorboard = TensorBoard(folder, training)
    for row in rows:
        training.history.append(row)
        tensorboard.update(training)
    tensorboard.close()


def read(folder) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, round(event.value, 4)) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def row(step, elbo):
    return {"step": step, "minutes": 0.5, "train_elbo": elbo, "val_elbo": elbo - 1}


def test_each_row_of_the_history_is_there(tmp_path):
    write(tmp_path / "events", row(50, 2.0), row(100, 3.0))
    assert read(tmp_path / "events") == {
        "training/minutes": [(50, 0.5), (100, 0.5)],
        "elbo/train": [(50, 2.0), (100, 3.0)],
        "elbo/val": [(50, 1.0), (100, 2.0)],
    }


def test_a_resumed_training_goes_on_with_its_curves_from_where_it_was(tmp_path):
    write(tmp_path / "events", row(50, 2.0), row(100, 3.0))
    write(tmp_path / "events", row(100, 4.0), row(150, 5.0), steps=70)
    assert read(tmp_path / "events")["elbo/train"] == [(50, 2.0), (100, 4.0), (150, 5.0)]


def test_a_training_from_the_start_leaves_nothing_of_an_earlier_one(tmp_path):
    write(tmp_path / "events", row(50, 2.0), row(100, 3.0))
    write(tmp_path / "events", row(50, 7.0))
    assert read(tmp_path / "events")["elbo/train"] == [(50, 7.0)]


def test_without_the_extra_it_is_one_line_that_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install --editable .*\[tensorboard\]"):
        TensorBoard(tmp_path, SimpleNamespace(steps=0, history=[]))
