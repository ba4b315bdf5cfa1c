"""One training in several processes, each with a device of its own."""

import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.strategies import DDPStrategy
from torch import distributed

from dvlae.config.training import TrainingSettings
from dvlae.system.errors import UserError
from dvlae.system.hardware.devices import has_fast_bfloat16
from dvlae.system.progress import log_to_stderr


def run_processes(work: Callable[[int], None], count: int) -> None:
    """Run ``work(rank)`` in ``count`` processes of this machine, which Lightning's DDP then connects.

    Parameters
    ----------
    work
        Function that can be pickled. Only the log of rank 0 is shown.
    count
        Number of processes. They share the threads of this process.

    Raises
    ------
    UserError
        The first one that a process raises; all processes are ended then.
    """
    mistakes = get_context("spawn").SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = max(1, torch.get_num_threads() // count)
    try:
        torch.multiprocessing.spawn(_start, (work, port, threads, mistakes), nprocs=count)
    except torch.multiprocessing.ProcessExitedException:
        if mistakes.empty():
            raise
        raise UserError(mistakes.get()) from None


def _start(rank: int, work: Callable[[int], None], port: int, threads: int, mistakes: SimpleQueue) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(threads)
    if rank > 0:
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (it stays open to the end of the process)
    try:
        with log_to_stderr():
            work(rank)
    except UserError as mistake:
        mistakes.put(str(mistake))
        sys.exit(1)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def average_over_processes(tensors: list[torch.Tensor]) -> None:
    """Replace each tensor by its mean over all processes, in place.

    Parameters
    ----------
    tensors
        Tensors of the same shapes in all processes.
    """
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


class Clock:
    """A clock of the training time; rank 0 broadcasts its time, so that all processes stop at the same step.

    Reading it does not wait for a GPU.

    Parameters
    ----------
    seconds
        Seconds of earlier attempts.
    processes
        Number of processes.
    """

    def __init__(self, seconds: float, processes: int):
        self.seconds, self.read_at = seconds, time.monotonic()
        self.group = distributed.new_group(backend="gloo") if processes > 1 else None

    def read(self) -> float:
        """Return the seconds until now, the same in all processes.

        Returns
        -------
        float
            Seconds of rank 0.
        """
        now = time.monotonic()
        self.seconds += now - self.read_at
        self.read_at = now
        if self.group is not None:
            seconds = torch.tensor(self.seconds, dtype=torch.float64)
            distributed.broadcast(seconds, src=0, group=self.group)
            self.seconds = float(seconds)
        return self.seconds


class _Autocast(MixedPrecision):
    """Mixed precision that does not convert the images: bfloat16 rounds grey values above 256."""

    def convert_input(self, data: Any) -> Any:
        return data


def connect(devices: Sequence[torch.device], limits: TrainingSettings) -> Fabric:
    """Return the Fabric of this process's device, connected to the other processes.

    Parameters
    ----------
    devices
        The devices of all processes.
    limits
        The settings of the training; its precision counts.

    Returns
    -------
    Fabric
        Launched.
    """
    device = devices[0]
    # These messages are of no use to a user: that the processes are connected, the layout of gradients, and the new
    # name of the option below.
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    for text in ("Grad strides", "`broadcast_buffers`"):
        warnings.filterwarnings("ignore", f".*{text}")
    plugins: list[Any] = [LightningEnvironment()]  # Otherwise Fabric would connect according to Slurm's variables.
    if choose_precision(limits, device) == "bf16":
        plugins.append(_Autocast("bf16-mixed", device.type))
    fabric = Fabric(
        accelerator=device.type,
        devices=[each.index for each in devices] if device.type == "cuda" else len(devices),
        # The loop averages batch statistics once a step; DDP would copy those of the first process.
        strategy=DDPStrategy(broadcast_buffers=False) if len(devices) > 1 else "auto",
        plugins=plugins,
    )
    fabric.launch()
    return fabric


def choose_precision(settings: TrainingSettings, device: torch.device) -> str:
    """Return the precision of a training on a device.

    Parameters
    ----------
    settings
        The settings of the training, whose precision may be ``auto``.
    device
        The device.

    Returns
    -------
    str
        ``32`` or ``bf16``.
    """
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if has_fast_bfloat16(device) else "32"
