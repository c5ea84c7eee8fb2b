"""One user with the engines that are really installed."""

from collections.abc import Iterator

import pytest

from tests.bundled_model import bundled_model
from tests.engines.real import DATA, OWN
from tests.processes import Home, a_home


@pytest.fixture
def home() -> Iterator[Home]:
    if OWN.get("SLOTDECK_ENGINES") != "1":
        pytest.skip("starts real engines: set SLOTDECK_ENGINES=1")
    with a_home() as one:
        one.environment["XDG_DATA_HOME"] = str(DATA.parent)
        models = one.paths.models
        models.mkdir(parents=True)
        (models / "smollm2-135m").symlink_to(bundled_model())
        yield one
