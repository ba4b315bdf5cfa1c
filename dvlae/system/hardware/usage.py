"""The processor time and the memory that this process and those that it starts use."""

import threading
import time
from contextlib import suppress
from typing import Self

import psutil

# Between two looks at the memory. A look takes milliseconds, and a shorter peak is missed.
SECONDS_BETWEEN_LOOKS = 0.5


class Usage:
    """A measurement, which lasts as long as its block.

    The memory is what processes have in use, where pages that they share count once for each. On Windows and macOS,
    processes that have ended are missing from the processor time.

    Attributes
    ----------
    seconds
        Duration of the block.
    processor_seconds
        Processor time of all threads.
    peak_memory_mb
        The largest memory that was seen, in MB.
    """

    def __init__(self) -> None:
        self.seconds = self.processor_seconds = self.peak_memory_mb = 0.0
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        self._processor_start = self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.processor_seconds = max(0.0, self._look() - self._processor_start)
        self.seconds = time.monotonic() - self._start

    def share(self, threads: int) -> float | None:
        """Return the part of the time of some threads that the processor worked for them.

        Parameters
        ----------
        threads
            Number of threads.

        Returns
        -------
        float or None
            1 if all of them computed all the time; None if nothing was measured.
        """
        return round(self.processor_seconds / (self.seconds * threads), 3) if self.seconds else None

    def _watch(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            self._look()

    def _look(self) -> float:
        """Note the memory of all processes, and return their processor time in seconds."""
        memory, processor = 0, 0.0
        for process in [self._process, *self._process.children(recursive=True)]:
            # A process may end at any moment; its time is then in that of its parent.
            with suppress(psutil.Error):
                times = process.cpu_times()
                processor += times.user + times.system + times.children_user + times.children_system
                memory += process.memory_info().rss
        self.peak_memory_mb = max(self.peak_memory_mb, memory / 1e6)
        return processor
