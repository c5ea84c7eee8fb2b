"""Allocators and OpenMP runtimes, found by their real file names."""

from pathlib import Path

from engine.host.libraries import find_libraries


def made(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_the_engines_own_environment_comes_first(tmp_path: Path) -> None:
    own = made(tmp_path / "venv/lib", "libiomp5.so", "libtcmalloc_minimal.so.4")
    home = made(tmp_path / "home/.local/lib", "libtcmalloc.so", "libjemalloc.so.2")
    python = made(tmp_path / "venv/bin", "python") / "python"
    found = find_libraries(str(python), {"HOME": str(tmp_path / "home")})
    assert found.tcmalloc == f"{own}/libtcmalloc_minimal.so.4"
    assert found.intel_openmp == f"{own}/libiomp5.so"
    assert found.jemalloc == f"{home}/libjemalloc.so.2"
    assert found.looked[0] == str(own)


def test_debugging_twins_and_archives_are_none_of_them(tmp_path: Path) -> None:
    made(tmp_path / "lib", "libiomp5.dbg", "libiomp5_db.so", "libiomp5.a", "libtcmalloc.so.orig")
    found = find_libraries("python", {"VIRTUAL_ENV": str(tmp_path)})
    assert found.intel_openmp is None or str(tmp_path) not in found.intel_openmp
    assert found.tcmalloc is None or str(tmp_path) not in found.tcmalloc


def test_of_several_versions_the_plain_name_is_taken(tmp_path: Path) -> None:
    made(tmp_path / "lib", "libtcmalloc.so.4.5.9", "libtcmalloc.so.4", "libtcmalloc.so")
    found = find_libraries("python", {"CONDA_PREFIX": str(tmp_path)})
    assert found.tcmalloc == f"{tmp_path}/lib/libtcmalloc.so"
