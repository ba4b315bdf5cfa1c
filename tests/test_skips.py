import os
import subprocess
import sys
from pathlib import Path

import pytest

AVOIDABLE = "import pytest\ndef test():\n    pytest.skip('no Slurm')\n"
UNAVOIDABLE = "import pytest\n@pytest.mark.skipif(True, reason='unavailable: the images')\ndef test():\n    pass\n"
WHOLE_MODULE = "import pytest\npytest.importorskip('no_such_package', reason='the extra is not installed')\n"
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail\ndef test():\n    assert False\n"


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a test module and returns pytest's exit status and what it printed."""

    def run(module: str, **environment: str) -> tuple[int, str]:
        (tmp_path / "test_module.py").write_text(module)
        without = {key: value for key, value in os.environ.items() if key != "CI"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "skips", "-p", "no:cacheprovider", "--rootdir", ".", "-rs"],
            cwd=tmp_path,
            env=without | {"PYTHONPATH": str(Path(__file__).parent)} | environment,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout

    return run


@pytest.mark.parametrize("module, passing", [(AVOIDABLE, 0), (WHOLE_MODULE, 5)], ids=["test", "module"])
def test_a_test_that_could_run_may_be_skipped_outside_ci_only(run, module, passing):
    status, printed = run(module)
    assert status == passing and "1 skipped" in printed
    status, printed = run(module, CI="true")
    assert status != passing and "skipped in continuous integration" in printed


@pytest.mark.parametrize(
    "module, outcome", [(UNAVOIDABLE, "1 skipped"), (EXPECTED_FAILURE, "1 xfailed")], ids=["unavailable", "xfail"]
)
def test_what_cannot_be_had_and_expected_failures_are_none_in_ci(run, module, outcome):
    status, printed = run(module, CI="true")
    assert status == 0 and outcome in printed
