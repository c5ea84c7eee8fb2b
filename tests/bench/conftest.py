from collections.abc import Iterator

import pytest

from tests.bench.fakes import Fake, starting_fakes


@pytest.fixture
def fake() -> Iterator[Fake]:
    with starting_fakes() as start:
        yield start
