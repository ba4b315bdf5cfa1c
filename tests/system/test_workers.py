import threading
import time

import pytest

from dvlae.system.workers import ThreadWorkers


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_the_order_of_the_work(count):
    def late(number: int) -> int:
        time.sleep(0.02 * (number % 3))
        return number

    with ThreadWorkers(count) as threads:
        assert list(threads.in_order(threads.submit(late, number) for number in range(20))) == list(range(20))


@pytest.mark.parametrize(("count", "most"), [(1, 1), (3, 5)])
def test_no_more_results_wait_than_the_workers_need(count, most):
    submitted = 0

    def submit():
        nonlocal submitted
        for number in range(20):
            submitted += 1
            yield threads.submit(int, number)

    with ThreadWorkers(count) as threads:
        for number in threads.in_order(submit()):
            assert submitted - number <= most


@pytest.mark.parametrize("count", [1, 2])
def test_a_failure_ends_the_work_that_waits(count):
    done = []

    def work(number: int) -> None:
        if number == 3:
            raise ValueError("no")
        time.sleep(0.05)
        done.append(number)

    with pytest.raises(ValueError, match="no"), ThreadWorkers(count) as threads:
        list(threads.in_order([threads.submit(work, number) for number in range(100)]))
    assert len(done) < 20


def test_work_may_wait_for_earlier_work():
    with ThreadWorkers(2) as threads:
        first = [threads.submit(time.sleep, 0.01) for _ in range(10)]
        later = [threads.submit(lambda: [each.result() for each in first] and 7) for _ in range(10)]
        assert [each.result() for each in later] == [7] * 10


def test_each_thread_is_prepared():
    prepared = set()
    with ThreadWorkers(3, lambda: prepared.add(threading.get_ident())) as threads:
        used = {threads.submit(threading.get_ident).result() for _ in range(30)}
    assert used <= prepared
