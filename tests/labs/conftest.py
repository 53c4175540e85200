"""What the labs' tests share."""

import gc

import pytest


@pytest.fixture(scope="session", autouse=True)
def little_garbage():
    """Accelerate collects garbage after each training; all that was imported need not be looked at.

    It takes most of the time of a training of two steps.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
