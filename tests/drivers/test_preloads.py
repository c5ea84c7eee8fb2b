"""Allocator and OpenMP runtime: what is preloaded, and the settings that go with it."""

import pytest

from engine.core.errors import LayoutError
from engine.core.layout import Instance
from engine.core.libraries import Libraries
from engine.drivers.preloads import preload_settings

ALL = Libraries("/l/libtcmalloc.so.4", "/l/libjemalloc.so.2", "/l/libiomp5.so", ("/l",))
NONE = Libraries(looked=("/a", "/b"))


def settings(
    wish: Instance, libraries: Libraries = ALL, preload: str = "", *, binds: bool = False
) -> dict[str, str]:
    shell = {"LD_PRELOAD": preload} if preload else {}
    found = preload_settings(wish, libraries, shell, binds_threads=binds)
    assert all(setting.source for setting in found.values())
    return {name: setting.value for name, setting in found.items()}


def test_auto_takes_tcmalloc_before_jemalloc_and_intel_openmp() -> None:
    assert settings(Instance(name="a", allocator="auto", openmp="auto")) == {
        "LD_PRELOAD": "/l/libtcmalloc.so.4:/l/libiomp5.so",
        "KMP_AFFINITY": "granularity=fine,compact,1,0",
        "KMP_BLOCKTIME": "1",
    }


def test_jemalloc_comes_with_its_configuration() -> None:
    found = settings(Instance(name="a", allocator="jemalloc"))
    assert found["LD_PRELOAD"] == "/l/libjemalloc.so.2"
    assert found["MALLOC_CONF"].startswith("oversize_threshold:1")


def test_what_the_user_preloads_stays_behind_ours() -> None:
    found = settings(Instance(name="a", allocator="tcmalloc"), preload="/own.so")
    assert found["LD_PRELOAD"] == "/l/libtcmalloc.so.4:/own.so"


def test_an_engine_that_binds_its_threads_gets_the_library_only() -> None:
    found = settings(Instance(name="a", openmp="intel"), binds=True)
    assert found == {"LD_PRELOAD": "/l/libiomp5.so"}


def test_auto_goes_without_what_is_not_there() -> None:
    assert settings(Instance(name="a", allocator="auto", openmp="auto"), NONE) == {}
    assert settings(Instance(name="a", allocator="system", openmp="default")) == {}


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (Instance(name="a", allocator="tcmalloc"), "libtcmalloc-minimal4"),
        (Instance(name="a", allocator="jemalloc"), "libjemalloc2"),
        (Instance(name="a", openmp="intel"), "intel-openmp"),
    ],
)
def test_a_library_that_is_named_must_be_there(wish: Instance, why: str) -> None:
    with pytest.raises(LayoutError, match=why) as raised:
        settings(wish, NONE)
    assert "/a, /b" in raised.value.why
