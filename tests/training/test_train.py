import json
import logging
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

import dvlae.training.checkpoints
import dvlae.training.loop
import dvlae.training.state
import dvlae.training.train
from dvlae.config.messages import validate
from dvlae.config.settings import TrainSettings
from dvlae.models.files import load_model
from dvlae.system.errors import UserError
from dvlae.system.hardware.devices import processor_name
from dvlae.system.hashes import sha256
from dvlae.training.crops import RandomCrops
from dvlae.training.objectives.elbo import Objective
from dvlae.training.schedule import Schedule
from dvlae.training.state import TrainingState
from dvlae.training.train import train

SMALL = {"levels": 2, "channels": 8, "latent_channels": 4}


def settings(
    model: dict | None = None, device: str = "cpu", devices: int = 1, network: str = "dvlae", **training
) -> TrainSettings:
    usual = {"patch_size": 16, "batch_size": 2, "max_steps": 6}
    values = {
        "model": SMALL | {"network": network} | (model or {}),
        "training": usual | training,
        "device": device,
        "devices": devices,
    }
    return validate(TrainSettings, values, "test")


def run(patches, output, checkpoints=None, *, seed=0, receptive_field=8, noise_direction="x", start_from=None, **keys):
    train(
        patches,
        output,
        receptive_field=receptive_field,
        noise_direction=noise_direction,
        seed=seed,
        checkpoints=checkpoints,
        settings=settings(**keys),
        start_from=start_from,
        cores=1,
    )
    return (output / "weights.safetensors").read_bytes()


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level(logging.INFO, "dvlae")


def crops(noise_direction="x", seed=3):
    array = np.arange(5 * 20 * 20, dtype=np.float32).reshape(5, 1, 20, 20)
    return RandomCrops(array, crop=(8, 8), batch_size=4, seed=seed, noise_direction=noise_direction)


def test_what_does_not_count_at_the_end_of_a_patch_is_cut_as_seldom_as_possible():
    patches = np.zeros((3, 1, 20, 20), np.float32)
    counts = np.ones(patches.shape, np.uint8)
    counts[0, :, 5:], counts[1, ..., 12:], counts[2, :, 3, 7] = 0, 0, 0
    keys = {"crop": (8, 8), "batch_size": 64, "seed": 0, "noise_direction": "x"}
    crops = RandomCrops(patches, **keys, counts=counts)
    starts = {number: [] for number in range(3)}
    for number, window, _ in crops._places(0):
        starts[number].append([side.start for side in window])
    ranges = [np.ptp(starts[number], axis=0).tolist() for number in range(3)]
    assert [np.max(starts[number], axis=0).tolist() for number in range(3)] == [[0, 12], [12, 4], [12, 12]]
    assert ranges[0][0] == 0 and ranges[1][1] == 4


def test_a_batch_is_a_function_of_seed_and_step():
    assert torch.equal(crops().batch(7), crops().batch(7))
    assert not torch.equal(crops().batch(7), crops().batch(8))
    assert not torch.equal(crops().batch(7), crops(seed=4).batch(7))


@pytest.mark.parametrize(("direction", "along_x", "along_y"), [
    ("x", {1}, {-20, 20}),
    ("y", {-1, 1}, {20}),
    ("none", {-1, 1}, {-20, 20}),
])  # fmt: skip
def test_flips_keep_the_order_of_pixels_along_the_noise(direction, along_x, along_y):
    batches = torch.cat([crops(direction).batch(step) for step in range(40)])
    assert {int(v) for v in batches.diff(dim=3).unique()} == along_x
    assert {int(v) for v in batches.diff(dim=2).unique()} == along_y


def test_what_counts_is_cut_and_flipped_like_the_batch():
    array = np.arange(5 * 20 * 20, dtype=np.float32).reshape(5, 1, 20, 20)
    counts = (array % 3 > 0).astype(np.uint8)
    masked = RandomCrops(array, crop=(8, 8), batch_size=4, seed=3, noise_direction="x", counts=counts)
    assert crops().counts(7) is None
    for step in range(10):
        for chosen in (None, range(1, 3)):
            batch = masked.batch(step, chosen)
            assert torch.equal(batch, crops().batch(step, chosen))
            assert torch.equal(masked.counts(step, chosen), (batch % 3 > 0).to(torch.uint8))


def test_a_mask_that_leaves_out_nothing_changes_nothing_and_one_that_does_changes_the_model(patches, tmp_path):
    def with_mask(array):
        folder = tmp_path / "patches"
        for name in ("train", "val"):
            shape = tifffile.TiffFile(folder / f"{name}.tif").series[0].shape
            mask = np.ones(shape, np.uint8) if array is None else array(shape)
            tifffile.imwrite(folder / f"{name}_mask.tif", mask, photometric="minisblack")
        description = json.loads((folder / "patches.json").read_text())
        description["sha256"] |= {"train_mask": "c", "val_mask": "d"}
        (folder / "patches.json").write_text(json.dumps(description))

    folder = patches()
    without = run(folder, tmp_path / "without")
    with_mask(None)
    run(folder, tmp_path / "ones")
    with_mask(lambda shape: (np.random.default_rng(0).random(shape) < 0.5).astype(np.uint8))
    half = run(folder, tmp_path / "half")
    plain, ones, masked = (
        pd.read_csv(tmp_path / name / "history.csv").iloc[-1] for name in ("without", "ones", "half")
    )
    assert half != without
    np.testing.assert_allclose(ones.drop("minutes", errors="ignore"), plain.drop("minutes", errors="ignore"), rtol=1e-3)
    assert masked.val_mse < 0.7 * plain.val_mse


def test_an_epoch_ends_where_it_would_have_ended_without_the_interruption():
    schedule = Schedule(settings().training, steps_per_epoch=10)
    assert [step for step in range(30) if schedule.ends_epoch(step, 1)] == [9, 19, 29]
    assert [step for step in range(6, 30, 3) if schedule.ends_epoch(step, 3)] == [9, 18, 27]


def test_a_model_folder_holds_all_that_is_promised(patches, tmp_path):
    run(patches(), tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "history.csv", "model.json", "run.json", "weights.safetensors"
    ]  # fmt: skip
    record = json.loads((tmp_path / "model" / "run.json").read_text())
    assert (record["format"], record["steps"], record["stopped_by"]) == (2, 6, "max_steps")
    assert record["device"] == processor_name()
    assert record["patches"] == {"train": "a", "val": "b"}
    assert record["versions"]["torch"] == torch.__version__
    history = pd.read_csv(tmp_path / "model" / "history.csv")
    assert history["step"].tolist() == [6]
    assert np.isfinite(history.to_numpy()).all()
    assert load_model(tmp_path / "model").architecture.receptive_field == 8


@pytest.mark.parametrize("levels", [1, 3])
def test_the_history_has_the_divergence_of_each_level(patches, tmp_path, monkeypatch, levels):
    monkeypatch.setitem(SMALL, "levels", levels)
    run(patches(), tmp_path / "model")
    history = pd.read_csv(tmp_path / "model" / "history.csv")
    for part in ("train", "val"):
        columns = [name for name in history if name.startswith(f"{part}_kl_level")]
        assert columns == [f"{part}_kl_level{level}" for level in range(levels)]
        np.testing.assert_allclose(history[columns].sum(axis=1), history[f"{part}_kl"], rtol=1e-5)


def test_free_bits_are_in_the_loss_of_the_history_and_keep_the_code_from_emptying(patches, tmp_path):
    folder, floor = patches(), 0.5
    run(folder, tmp_path / "free", free_bits=floor, max_steps=60)
    run(folder, tmp_path / "usual", max_steps=60)
    free, usual = (pd.read_csv(tmp_path / name / "history.csv").iloc[-1] for name in ("free", "usual"))
    assert free.val_kl > 2 * usual.val_kl
    assert free.val_elbo == pytest.approx(free.val_log_likelihood - free.val_kl, rel=1e-4)
    assert free.val_loss >= free.val_mse - free.val_log_likelihood + 2 * floor - 1e-4


@pytest.mark.parametrize(("channels", "noise_direction", "receptive_field"), [(3, "x", 4), (1, "y", 8), (1, "none", 0)])
def test_every_direction_and_several_channels_train(patches, tmp_path, channels, noise_direction, receptive_field):
    run(patches(channels), tmp_path / "model", noise_direction=noise_direction, receptive_field=receptive_field)
    assert np.isfinite(pd.read_csv(tmp_path / "model" / "history.csv")["val_elbo"]).all()


def test_half_saturated_images_train(patches, tmp_path):
    def saturate(array):
        array[..., 16:] = 255
        return array

    run(patches(transform=saturate), tmp_path / "model", max_steps=30)
    assert np.isfinite(pd.read_csv(tmp_path / "model" / "history.csv")["val_elbo"]).all()


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(patches, tmp_path):
    folder = patches()
    one, same, other = (run(folder, tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert one == same
    assert one != other


class Killed(Exception):
    """Stands for a kill signal in the middle of a training."""


@pytest.fixture
def killed_at(monkeypatch):
    """Return a function that trains until a step and is killed there; each step is saved."""

    def start(step, *arguments, **keys):
        original = RandomCrops.batch

        def batch(self, number, chosen):
            if number == step:
                raise Killed
            return original(self, number, chosen)

        with monkeypatch.context() as patch:
            patch.setattr(dvlae.training.checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0)
            patch.setattr(RandomCrops, "batch", batch)
            with pytest.raises(Killed):
                run(*arguments, **keys)

    return start


@pytest.mark.parametrize("step", [1, 3, 5])
def test_resumed_equals_uninterrupted_bit_for_bit(patches, tmp_path, killed_at, step, caplog):
    folder, keys = patches(), {"min_epoch_steps": 4}
    uninterrupted = run(folder, tmp_path / "whole", **keys)
    killed_at(step, folder, tmp_path / "model", tmp_path / "checkpoints", **keys)
    assert not (tmp_path / "model").exists()
    assert run(folder, tmp_path / "model", tmp_path / "checkpoints", **keys) == uninterrupted
    assert f"resuming from step {step}" in caplog.text
    record = json.loads((tmp_path / "model" / "run.json").read_text())
    assert record["attempts"] == 2


def test_gradients_that_are_added_survive_a_kill_in_an_epoch_that_is_no_multiple_of_them(patches, tmp_path, killed_at):
    folder, keys = patches(), {"batch_size": 8, "accumulate": 2, "min_epoch_steps": 3}  # 3 batches an epoch
    whole = run(folder, tmp_path / "whole", **keys)
    killed_at(4, folder, tmp_path / "model", tmp_path / "checkpoints", **keys)
    assert run(folder, tmp_path / "model", tmp_path / "checkpoints", **keys) == whole


def test_a_finished_training_that_was_not_written_is_not_trained_on(patches, tmp_path, monkeypatch):
    folder = patches()

    def save_model(*_, **__):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(dvlae.training.checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0)
        patch.setattr(dvlae.training.train, "save_model", save_model)
        run(folder, tmp_path / "model", tmp_path / "checkpoints")
    assert run(folder, tmp_path / "model", tmp_path / "checkpoints") == run(folder, tmp_path / "whole")
    assert json.loads((tmp_path / "model" / "run.json").read_text())["steps"] == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamax", "accumulate": 2},
        {"free_bits": 0.5, "learning_rate": 0.002},
        {"network": "paper"},
        {"schedule": "plateau", "plateau_patience": 1, "min_epoch_steps": 1, "batch_size": 8, "learning_rate": 1e-12},
        {"schedule": "plateau", "optimizer": "adamax", "average_decay": 0.0, "gradient_clip_norm": None},
        {"model": {"direct_denoiser": "refined"}, "max_steps": 7},
        {"model": {"direct_denoiser": "refined"}, "max_steps": 7, "refine_fraction": 0.9},
    ],
    ids=str,
)
def test_every_kind_of_training_resumes_bit_for_bit(patches, tmp_path, killed_at, changes):
    folder, changes = patches(), {"min_epoch_steps": 4} | changes
    killed_at(3, folder, tmp_path / "model", tmp_path / "checkpoints", **changes)
    assert run(folder, tmp_path / "model", tmp_path / "checkpoints", **changes) == run(
        folder, tmp_path / "whole", **changes
    )
    resumed, whole = (
        pd.read_csv(tmp_path / name / "history.csv").drop(columns="minutes") for name in ("model", "whole")
    )
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)


def test_a_model_that_the_workflow_lost_is_written_again_without_training(patches, tmp_path, caplog):
    folder = patches()
    weights = run(folder, tmp_path / "model", tmp_path / "checkpoints")
    shutil.rmtree(tmp_path / "model")
    assert run(folder, tmp_path / "model", tmp_path / "checkpoints") == weights
    assert "resuming from step 6" in caplog.text


def test_a_checkpoint_with_one_wrong_byte_is_not_resumed(patches, tmp_path, killed_at, caplog):
    folder = patches()
    killed_at(3, folder, tmp_path / "model", tmp_path / "checkpoints")
    state = tmp_path / "checkpoints" / "state.pt"
    weights = torch.load(state, weights_only=True)["model"]["ladder_vae.stem.weight"].numpy().tobytes()
    content = state.read_bytes()
    state.write_bytes(content.replace(weights, weights[:-1] + bytes([weights[-1] ^ 1])))
    assert run(folder, tmp_path / "model", tmp_path / "checkpoints") == run(folder, tmp_path / "whole")
    assert "damaged and not resumed" in caplog.text


def test_truncated_patches_are_one_line(patches, tmp_path):
    folder = patches()
    file = folder / "train.tif"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"train.tif: damaged"):
        run(folder, tmp_path / "model")


def test_other_settings_are_not_resumed_and_the_log_says_why(patches, tmp_path, killed_at, caplog):
    folder = patches()
    killed_at(3, folder, tmp_path / "model", tmp_path / "checkpoints")
    weights = run(folder, tmp_path / "model", tmp_path / "checkpoints", learning_rate=0.001)
    assert "settings.training.learning_rate from 0.01 to 0.001" in caplog.text
    assert weights == run(folder, tmp_path / "anew", learning_rate=0.001)


def test_a_training_is_resumed_with_another_number_of_workers(patches, tmp_path, killed_at, caplog):
    folder = patches()
    killed_at(3, folder, tmp_path / "model", tmp_path / "checkpoints", workers=1)
    run(folder, tmp_path / "model", tmp_path / "checkpoints", workers=2)
    assert "train: 2 workers; training.workers says so" in caplog.text
    assert "resuming from step 3" in caplog.text
    record = json.loads((tmp_path / "model/run.json").read_text())
    assert record["workers"] == 2
    assert "workers" not in record["settings"]["training"]


def test_a_damaged_checkpoint_is_not_resumed(patches, tmp_path, killed_at, caplog):
    folder = patches()
    killed_at(3, folder, tmp_path / "model", tmp_path / "checkpoints")
    state = tmp_path / "checkpoints" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    assert run(folder, tmp_path / "model", tmp_path / "checkpoints") == run(folder, tmp_path / "whole")
    assert "damaged" in caplog.text


class Trap:
    """A pickle of it makes a file when it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_checkpoint_that_holds_code_is_not_run(patches, tmp_path, killed_at, caplog):
    folder = patches()
    killed_at(3, folder, tmp_path / "model", tmp_path / "checkpoints")
    state = tmp_path / "checkpoints" / "state.pt"
    torch.save(torch.load(state, weights_only=True) | {"steps": Trap(tmp_path / "trapped")}, state)
    run(folder, tmp_path / "model", tmp_path / "checkpoints")
    assert "damaged" in caplog.text
    assert not (tmp_path / "trapped").exists()


def test_batch_statistics_are_averaged_like_the_weights(patches, tmp_path, monkeypatch):
    seen = []
    follow = TrainingState.update_average
    names = ["ladder_vae.last_block.norm1.running_mean", "ladder_vae.last_block.norm1.weight"]

    def record(self, steps):
        before = [self.average.state_dict()[name].clone() for name in names]
        follow(self, steps)
        after, current = (module.state_dict() for module in (self.average, self.model))
        seen.append([(old, after[name].clone(), current[name].clone()) for name, old in zip(names, before)])  # noqa: B905

    monkeypatch.setattr(TrainingState, "update_average", record)
    run(patches(), tmp_path / "model", max_steps=4)
    for steps, tensors in enumerate(seen):
        for old, new, current in tensors:
            assert torch.allclose(new, torch.lerp(old, current, 9 / (9 + steps)), atol=1e-6)


def test_time_is_counted_over_all_attempts(patches, tmp_path, killed_at):
    folder = patches()
    keys = {"max_steps": None, "max_minutes": 1}
    killed_at(5, folder, tmp_path / "model", tmp_path / "checkpoints", **keys)
    state = torch.load(tmp_path / "checkpoints" / "state.pt", weights_only=True)
    torch.save(state | {"seconds": 100.0}, tmp_path / "checkpoints" / "state.pt")
    run(folder, tmp_path / "model", tmp_path / "checkpoints", **keys)
    record = json.loads((tmp_path / "model" / "run.json").read_text())
    assert (record["stopped_by"], record["steps"]) == ("max_minutes", 6)


@pytest.mark.parametrize("waits_for", ["elbo", "mse"])
def test_patience_ends_a_training_that_does_not_get_better(patches, tmp_path, waits_for):
    keys = {"max_steps": 300, "min_epoch_steps": 1, "learning_rate": 1e-12}
    run(patches(), tmp_path / "model", patience=2, patience_on=waits_for, **keys)
    record = json.loads((tmp_path / "model" / "run.json").read_text())
    assert record["stopped_by"] == "patience"
    assert record["steps"] < 300


def test_what_is_no_number_any_more_returns_to_the_last_good_state(patches, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(dvlae.training.state, "STEPS_BETWEEN_CHECKS", 2)
    healthy = Objective.forward
    calls = iter(range(100))

    def forward(self, batch, kl_weight, counts):
        loss, values = healthy(self, batch, kl_weight, counts)
        return loss * math.nan if next(calls) == 3 else loss, values

    monkeypatch.setattr(Objective, "forward", forward)
    run(patches(), tmp_path / "model", max_steps=8)
    assert all(torch.isfinite(weight).all() for weight in load_model(tmp_path / "model").state_dict().values())
    described = json.loads((tmp_path / "model" / "run.json").read_text())
    assert (described["rescues"], described["steps"]) == (1, 8)
    assert "before step 4 the weights became infinite or NaN" in caplog.text
    assert pd.read_csv(tmp_path / "model" / "history.csv").notna().all(axis=None)


def test_a_history_whose_steps_were_all_rolled_back_has_the_columns_of_any(patches, tmp_path, monkeypatch):
    folder = patches()
    run(folder, tmp_path / "healthy", max_steps=2)
    healthy = Objective.forward

    def forward(self, batch, kl_weight, counts):
        loss, values = healthy(self, batch, kl_weight, counts)
        return loss * math.nan, values

    monkeypatch.setattr(Objective, "forward", forward)
    run(folder, tmp_path / "model", max_steps=2)
    expected, found = (pd.read_csv(tmp_path / name / "history.csv") for name in ("healthy", "model"))
    assert list(found.columns) == list(expected.columns)
    assert list(found.columns[found.isna().all()]) == [name for name in found.columns if name.startswith("train_")]


def test_weights_that_are_no_numbers_whatever_the_rate_end_with_one_line(patches, tmp_path):
    with pytest.raises(UserError, match=r"lower training.learning_rate"):
        run(patches(), tmp_path / "model", max_steps=60, learning_rate=1e6, max_rollbacks=0)
    assert not (tmp_path / "model").exists()


def test_an_empty_code_is_said_aloud(patches, tmp_path, caplog, monkeypatch):
    folder = patches()
    run(folder, tmp_path / "model")
    assert "carries no information" not in caplog.text
    monkeypatch.setattr(dvlae.training.train, "COLLAPSED_KL", 100.0)
    run(folder, tmp_path / "again")
    assert "carries no information" in caplog.text


def test_a_noise_direction_that_the_patches_do_not_have_is_refused(patches, tmp_path):
    with pytest.raises(UserError, match=r"noise direction: found z, allowed for these patches: y, x, none"):
        run(patches(), tmp_path / "model", noise_direction="z")


def test_a_crop_larger_than_the_patches_is_refused(patches, tmp_path):
    with pytest.raises(UserError, match=r"patch_size: found 64, but the patches have 32 x 32 pixels"):
        run(patches(), tmp_path / "model", patch_size=64)


def test_a_crop_shorter_than_the_stride_makes_the_model_halve_that_axis_less_often(patches, tmp_path):
    run(patches(), tmp_path / "model", patch_size=[3, 16])
    assert load_model(tmp_path / "model").stride == (1, 4)


def test_activation_checkpointing_learns_the_same(patches, tmp_path):
    folder = patches()
    run(folder, tmp_path / "kept")
    run(folder, tmp_path / "recomputed", activation_checkpointing=True)
    kept, recomputed = (load_model(tmp_path / name) for name in ("kept", "recomputed"))
    for one, other in zip(kept.parameters(), recomputed.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_where_compilation_fails_training_goes_on_without_and_says_so(patches, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no compiler here\nand a long story")

    folder = patches()
    eager = run(folder, tmp_path / "eager")
    monkeypatch.setattr(torch, "compile", lambda function: fail)
    assert run(folder, tmp_path / "compiled", compile=True) == eager
    assert "torch.compile failed, continuing without it (no compiler here)" in caplog.text


def test_a_folder_without_patches_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a folder of patches"):
        run(tmp_path / "nothing", tmp_path / "model")


@pytest.mark.skipif(torch.cuda.is_available(), reason="unavailable: a machine without a GPU")
def test_asking_for_a_gpu_where_none_is_is_refused(patches, tmp_path):
    with pytest.raises(UserError, match="device: found 'cuda'"):
        run(patches(), tmp_path / "model", device="cuda")


@pytest.mark.parametrize("optimizer", ["adamax", "muon"])
def test_the_rest_learns_the_same_with_a_direct_denoiser_as_without(tmp_path, patches, optimizer):
    folder = patches()
    for name, direct in (("without", False), ("with", "mean")):
        how = settings(optimizer=optimizer, gradient_clip_norm=0.01, model={"direct_denoiser": direct})
        train(
            folder,
            tmp_path / name,
            receptive_field=8,
            noise_direction="x",
            seed=0,
            checkpoints=None,
            settings=how,
            cores=1,
        )
    without, beside = (load_model(tmp_path / name) for name in ("without", "with"))
    assert without.direct_denoiser is None
    weights = beside.state_dict()
    for name, tensor in without.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-5, atol=1e-6)
    history = pd.read_csv(tmp_path / "with" / "history.csv")
    assert (history.val_direct > 0).all()


@pytest.mark.parametrize(("has_instructions", "precision"), [(True, "bf16"), (False, "32")])
def test_the_precision_is_what_the_processor_has_instructions_for(
    patches, tmp_path, monkeypatch, has_instructions, precision
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_instructions})
    run(patches(), tmp_path / "model")
    record = json.loads((tmp_path / "model" / "run.json").read_text())
    assert (record["precision"], record["settings"]["training"]["precision"]) == (precision, "auto")


def test_two_devices_learn_what_one_learns_that_accumulates(patches, tmp_path):
    folder, one, two = patches(), tmp_path / "one", tmp_path / "two"
    run(folder, one, accumulate=2, max_steps=8, precision=32)
    run(folder, two, accumulate=2, max_steps=8, devices=2, precision=32)
    histories = [pd.read_csv(folder / "history.csv") for folder in (one, two)]
    trained = [name for name in histories[0] if name.startswith("train_")] + ["step", "epoch", "learning_rate"]
    np.testing.assert_allclose(histories[1][trained], histories[0][trained], rtol=1e-4, atol=1e-5)
    for folder, devices in ((one, 1), (two, 2)):
        record = json.loads((folder / "run.json").read_text())
        assert (record["steps"], record["stopped_by"], record["settings"]["devices"]) == (8, "max_steps", devices)
    assert np.isfinite(histories[1].to_numpy()).all()


def test_a_training_goes_on_from_a_model_and_says_from_which(patches, tmp_path):
    folder = patches()
    run(folder, tmp_path / "first", max_steps=100)
    # The learning rate is too low to change anything.
    still = {"start_from": tmp_path / "first", "learning_rate": 1e-12, "max_steps": 2}
    run(folder, tmp_path / "second", **still)
    first, second = (load_model(tmp_path / name) for name in ("first", "second"))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    record = json.loads((tmp_path / "second" / "run.json").read_text())
    assert record["start_from"] == sha256(tmp_path / "first" / "weights.safetensors")
    assert "start_from" not in json.loads((tmp_path / "first" / "run.json").read_text())


def test_the_divergence_has_its_full_weight_from_the_first_step_of_a_trained_model():
    limits = settings(max_steps=10_000).training
    assert Schedule(limits, 50).kl_weight(0, 0.0) < 0.01
    assert Schedule(limits, 50, started=True).kl_weight(0, 0.0) == 1


@pytest.mark.parametrize(
    "expected, step, weight",
    [(None, 249, 0.5), (20_000, 249, 0.5), (5000, 249, 0.5), (1000, 49, 0.5), (1000, 99, 1), (3, 0, 1)],
)
def test_a_training_with_time_for_few_steps_has_a_shorter_warm_up(expected, step, weight):
    limits = settings(max_steps=None, max_minutes=10).training
    schedule = Schedule(limits, 50, expected_steps=expected)
    assert schedule.kl_weight(step, 0.0) == weight
    rises = [schedule.learning_rate(step, 0) for step in range(200)]
    assert rises.index(max(rises)) == min(100, math.ceil((expected or 5000) / 10)) - 1


def test_a_checkpoint_of_a_training_from_another_model_is_not_resumed(patches, tmp_path, caplog):
    folder = patches()
    for name, seed in (("first", 0), ("other", 1)):
        run(folder, tmp_path / name, seed=seed)
    run(folder, tmp_path / "model", tmp_path / "checkpoints", start_from=tmp_path / "first")
    caplog.clear()
    run(folder, tmp_path / "model", tmp_path / "checkpoints", start_from=tmp_path / "other")
    assert "resuming" not in caplog.text


def test_a_folder_without_a_model_to_start_from_is_refused(patches, tmp_path):
    folder = patches()
    with pytest.raises(UserError, match=r"model.json: not found; .* is not the folder of a trained model"):
        run(folder, tmp_path / "model", start_from=tmp_path / "nothing")
    assert not (tmp_path / "model").exists()
