from collections.abc import Iterator

import pytest

from tests.processes import Home, a_home


@pytest.fixture
def home() -> Iterator[Home]:
    with a_home() as one:
        yield one
