import logging
import time

import pytest
import torch

from dvlae.system.errors import UserError
from dvlae.training.processes import _start, run_processes


def _one_refuses(rank: int) -> None:
    if rank == 1:
        raise UserError("config.yaml: no")
    time.sleep(600)


def test_the_mistake_of_one_process_ends_all_with_its_one_line():
    started = time.monotonic()
    with pytest.raises(UserError, match=r"^config.yaml: no$"):
        run_processes(_one_refuses, 2)
    assert time.monotonic() - started < 300


def test_what_the_first_process_logs_is_shown(monkeypatch, capsys):
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
    logger = logging.getLogger("dvlae.training.train")
    _start(0, lambda rank: logger.info("train: 3 steps"), 1, torch.get_num_threads(), None)
    assert capsys.readouterr().err == "train: 3 steps\n"
