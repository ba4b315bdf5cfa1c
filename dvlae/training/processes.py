"""One training in several processes, each with a device of its own."""

import os
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue

import torch
from torch import distributed

from dvlae.system.errors import UserError
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
