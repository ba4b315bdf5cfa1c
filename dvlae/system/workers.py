"""Work that is divided among threads of this process, with results in order.

Threads suffice where the work is done by libraries that let other threads run meanwhile, as NumPy, SciPy and PyTorch do
in long computations. Nothing has to be copied from one process to another then.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, Self, TypeVar

Result = TypeVar("Result")


class ThreadWorkers:
    """Threads that compute what is submitted, in this order. As a context manager, it ends them.

    A computation may wait for one that was submitted earlier.

    Parameters
    ----------
    count
        Number of threads; 1: all is computed at once, in the thread that submits it.
    prepare
        Called in each new thread before it computes.
    within
        Makes a context for each computation, such as the precision of its thread.
    """

    def __init__(
        self,
        count: int = 1,
        prepare: Callable[[], object] | None = None,
        within: Callable[[], AbstractContextManager[object]] = nullcontext,
    ):
        self.count, self._within = count, within
        self._pool = ThreadPoolExecutor(count, initializer=prepare) if count > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, function: Callable[..., Result], *arguments: Any) -> "Future[Result]":
        """Compute a function of these arguments.

        Parameters
        ----------
        function
            What to compute.
        *arguments
            Its arguments.

        Returns
        -------
        Future
            It holds the result, or the exception, as soon as there is one.
        """
        if self._pool is not None:
            return self._pool.submit(self._compute, function, *arguments)
        future: Future[Result] = Future()
        future.set_result(self._compute(function, *arguments))
        return future

    def _compute(self, function: Callable[..., Result], *arguments: Any) -> Result:
        with self._within():
            return function(*arguments)

    def in_order(self, submitted: Iterable["Future[Result]"]) -> Iterator[Result]:
        """Yield results in the order in which they were submitted.

        Parameters
        ----------
        submitted
            An iterator that submits as it is read. It is read ahead by one more than the threads, so that they always
            have work, and no more results wait.

        Yields
        ------
        Result
            The results.
        """
        waiting: deque[Future[Result]] = deque()
        for future in submitted:
            waiting.append(future)
            if len(waiting) > (self.count + 1 if self.count > 1 else 0):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class TwoPasses(Protocol[Result]):
    """Work in two passes, of which the second one waits for the first. Each pass submits as it is read."""

    def first_pass(self) -> "Iterable[Future[Result]]": ...  # noqa: D102

    def second_pass(self) -> "Iterable[Future[Result]]": ...  # noqa: D102


def one_ahead(work: Iterable[TwoPasses[Result]]) -> "Iterator[Future[Result]]":
    """Submit the first pass of each piece of work before the second one of the last piece, so that no thread waits.

    Parameters
    ----------
    work
        Pieces of work, which are made as they are needed.

    Yields
    ------
    Future
        What is submitted, in this order.
    """
    current = None
    for following in work:
        yield from following.first_pass()
        if current is not None:
            yield from current.second_pass()
        current = following
    if current is not None:
        yield from current.second_pass()
