import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_worker():
    """Start no processes for two steps of training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dvlae.training.train.choose_workers", lambda *arguments, **options: 1)
        yield
