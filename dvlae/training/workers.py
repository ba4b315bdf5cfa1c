"""Workers: processes with one thread each that share every batch of one training.

On a processor, two workers are faster than two threads of one process, above all beside other programs: threads wait
for each other at every operation, workers twice in a step. They wait at sockets, which leaves the core to others, and
a worker notices at once that another one has died.
"""

import logging
import mmap
import os
import pickle
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from dvlae.system.errors import UserError
from dvlae.system.parts import share

_LENGTH = struct.Struct("!Q")
# A worker that ends as it should is gone long before.
_SECONDS_TO_END = 10


class LostWorkerError(Exception):
    """Another worker has ended, so this one cannot go on."""


class Workers:
    """All workers of a training, seen from one of them.

    Parameters
    ----------
    rank
        Number of this worker. Worker 0 is the process of the user.
    connections
        Sockets to all workers in the order of their ranks, without this one.
    memory
        File or, on Windows, name of the memory that all workers share; None: a single worker needs none.
    """

    def __init__(self, rank: int = 0, connections: Sequence[socket.socket] = (), memory: int | str | None = None):
        self.rank, self.count = rank, len(connections) + 1
        self._connections, self._memory = connections, memory

    def share(self, total: int) -> range:
        """Return which of ``total`` things this worker computes.

        Parameters
        ----------
        total
            Number of things, for example crops of a batch.

        Returns
        -------
        range
            As :func:`dvlae.system.parts.share`.
        """
        return share(total, self.rank, self.count)

    def wait(self) -> None:
        """Wait until all workers are here.

        Raises
        ------
        LostWorkerError
            If one of them has ended.
        """
        for connection in self._connections:
            _send(connection, b".")
        for connection in self._connections:
            _receive(connection, 1)

    def exchange(self, value: Any) -> list[Any]:
        """Give a value to all workers, and return the values of all.

        Parameters
        ----------
        value
            A value that can be pickled, of any size.

        Returns
        -------
        list
            One value for each worker, in the order of their ranks.

        Raises
        ------
        LostWorkerError
            If a worker has ended.
        """
        values = []
        for sender in range(self.count):  # One after the other, so that no two wait to be read by each other.
            if sender == self.rank:
                content = pickle.dumps(value)
                for connection in self._connections:
                    _send(connection, _LENGTH.pack(len(content)))
                    _send(connection, content)
                values.append(value)
            else:
                connection = self._connections[sender - (sender > self.rank)]
                (length,) = _LENGTH.unpack(_receive(connection, _LENGTH.size))
                values.append(pickle.loads(_receive(connection, length)))
        return values

    def shared_memory(self, size: int) -> Tensor:
        """Return memory that all workers see, initially zero. All call it, once.

        Parameters
        ----------
        size
            Number of values.

        Returns
        -------
        Tensor
            (size,), float64.
        """
        if self._memory is None:
            return torch.zeros(size, dtype=torch.float64)
        if self.rank == 0 and isinstance(self._memory, int):
            os.ftruncate(self._memory, size * 8)
        self.wait()
        return torch.frombuffer(_map(self._memory, size * 8), dtype=torch.float64)


def _map(memory: int | str, size: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size, tagname=str(memory))
    return mmap.mmap(int(memory), size)


def _send(connection: socket.socket, content: bytes) -> None:
    try:
        connection.sendall(content)
    except OSError as error:
        raise LostWorkerError from error


def _receive(connection: socket.socket, length: int) -> bytes:
    content = bytearray(length)
    missing = memoryview(content)
    while missing:
        try:
            received = connection.recv_into(missing)
        except OSError as error:
            raise LostWorkerError from error
        if received == 0:
            raise LostWorkerError
        missing = missing[received:]
    return bytes(content)


def run_workers(work: Callable[[Workers], None], count: int) -> None:
    """Run ``work`` in this process, as worker 0, and in ``count - 1`` new ones, until all have finished.

    Parameters
    ----------
    work
        Function that can be pickled. Only worker 0 shows its log. All workers raise the same :class:`UserError`, or
        none.
    count
        Number of workers.

    Raises
    ------
    UserError
        If a worker is killed.
    """
    if count == 1:
        work(Workers())
        return
    with ExitStack() as stack:
        connections: list[list[socket.socket]] = [[] for _ in range(count)]
        for one, other in combinations(range(count), 2):
            for rank, end in zip((one, other), socket.socketpair(), strict=True):
                connections[rank].append(stack.enter_context(end))
                if end.family == socket.AF_INET:  # Windows has no other sockets.
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        memory = _make_memory(stack)
        children = [_start(work, rank, connections[rank], memory) for rank in range(1, count)]
        # Each end is open in one process only, so that it is closed when that process ends.
        for ends in connections[1:]:
            for end in ends:
                end.close()
        try:
            work(Workers(0, connections[0], memory))
        except LostWorkerError:
            codes = [_end(child) for child in children]
            if killed := [-code for code in codes if code < 0]:
                name = signal.Signals(killed[0]).name
                cause = " (perhaps because memory ran out: lower training.workers then)" if name == "SIGKILL" else ""
                raise UserError(
                    f"train: a worker was killed by {name}{cause}; the same command continues from the last "
                    "checkpoint, if there is one"
                ) from None
            raise RuntimeError(f"a worker failed, see above; exit codes {codes}") from None
        finally:
            for end in connections[0]:
                end.close()
            for child in children:
                _end(child)


def _make_memory(stack: ExitStack) -> int | str:
    """Return an empty file without a name, in memory where the system provides that; on Windows, a name for memory."""
    if sys.platform == "win32":
        return f"dvlae-{secrets.token_hex(16)}"
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("dvlae")
        stack.callback(os.close, file)
        return file
    return stack.enter_context(tempfile.TemporaryFile()).fileno()


def _start(
    work: Callable[[Workers], None], rank: int, connections: Sequence[socket.socket], memory: int | str
) -> subprocess.Popen:
    """Start one worker. Unlike multiprocessing, this does not import the user's own script a second time."""
    # On Windows the Python of a virtual environment starts another one, so that only this one knows its number.
    code = "import os; print(os.getpid(), flush=True); from dvlae.training import workers; workers.start_worker()"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[] if isinstance(memory, str) else [memory, *(connection.fileno() for connection in connections)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert child.stdin is not None and child.stdout is not None
    with child.stdout as pipe:
        process = int(pipe.readline())
    with child.stdin as pipe:
        pickle.dump((rank, [_give(connection, process) for connection in connections], memory, work), pipe)
    return child


def _give(connection: socket.socket, process: int) -> bytes | int:
    """Return what lets a new process take a connection: on Windows a description, elsewhere the number of its file."""
    if sys.platform == "win32":
        return connection.share(process)
    return connection.fileno()


def _take(given: Any) -> socket.socket:
    if sys.platform == "win32":
        return socket.fromshare(given)
    return socket.socket(fileno=given)


def _end(child: subprocess.Popen) -> int:
    """Wait for a worker whose connections are closed or about to be; kill it if it does not end by itself."""
    try:
        return child.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def start_worker() -> None:
    """Run the work of a worker that :func:`run_workers` started."""
    # Ctrl-C also reaches this process. It ends with worker 0, and only that one speaks to the user.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    logging.getLogger("dvlae").addHandler(logging.NullHandler())
    logging.getLogger("dvlae").propagate = False
    # Nobody reads what it prints.
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (it stays open to the end of the process)
    rank, given, memory, work = pickle.load(sys.stdin.buffer)
    try:
        work(Workers(rank, [_take(connection) for connection in given], memory))
    except (LostWorkerError, UserError):
        sys.exit(1)
