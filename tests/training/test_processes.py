import time

import pytest

from dvlae.system.errors import UserError
from dvlae.training.processes import run_processes


def _one_refuses(rank: int) -> None:
    if rank == 1:
        raise UserError("config.yaml: no")
    time.sleep(600)


def test_the_mistake_of_one_process_ends_all_with_its_one_line():
    started = time.monotonic()
    with pytest.raises(UserError, match="^config.yaml: no$"):
        run_processes(_one_refuses, 2)
    assert time.monotonic() - started < 300
