"""Work that is divided among threads of this process."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Call a function for each item in ``workers`` threads, and yield the results in the order of the items.

    Parameters
    ----------
    function
        Called in any order and thread, each of which computes with a single thread.
    items
        Read as they are needed: at most one more than ``workers`` results wait at a time.
    workers
        Number of threads; 1: the function is called in this thread.

    Yields
    ------
    Result
        The results, in order.
    """
    if workers == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
