"""Makes what an engine's packages lack: stubs for CUDA's libraries, and a compiled extension."""

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import ControlError
from engine.engines.compiler import CompileFailed, Compiler
from engine.engines.cuda_stubs import Stub, make_stubs, readelf
from engine.engines.environments import delete, site_packages
from engine.engines.extension import Extension, Isa
from engine.engines.fetching import NEW
from engine.engines.pip import Pip
from engine.engines.progress import Progress
from engine.engines.words import megabytes

HEADERS = Path(__file__).with_name("headers")
_OBJECTS = "objects-"
_COMMON = ("-std=c++17", "-O2", "-DNDEBUG", "-fPIC", "-fopenmp", "-w")


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds into one environment; what is compiled already is kept beside its packages."""

    compiler: Compiler
    environment: Path
    downloads: Path
    log: Path
    clock: Callable[[], float]
    progress: Progress
    keep_open: tuple[int, ...] = ()

    def stub_cuda(self) -> None:
        """Take CUDA's libraries out of torch, and put stubs in their place."""
        torch = site_packages(self.environment) / "torch" / "lib"
        # What else is compiled for torch, torchvision above all, looks for some of them too.
        users = [
            file
            for file in site_packages(self.environment).glob("*/*.so")
            if "libtorch" in readelf(file)
        ]
        self.progress.begin("making stubs of CUDA's libraries")
        saved = make_stubs(
            torch, users, read=readelf, compile_stub=lambda stub: self._stub(torch, stub)
        )
        self.progress.end(f"{megabytes(saved)} less")

    def _stub(self, folder: Path, stub: Stub) -> None:
        scratch = self._scratch()
        (scratch / "stub.c").write_text(stub.source)
        words = ["-x", "c", "-shared", "-fPIC", "-fno-builtin", "-w", str(scratch / "stub.c")]
        if stub.version_script:
            (scratch / "stub.map").write_text(stub.version_script)
            words.append(f"-Wl,--version-script={scratch / 'stub.map'}")
        words += [f"-Wl,-soname,{stub.library}", "-o", str(folder / stub.library)]
        self._run(words, f"a stub of {stub.library}", lambda: self.progress.now(stub.library))
        delete(scratch)

    def extend(self, extension: Extension, isa: Isa, pip: Pip, include: Path) -> None:
        """Fetch, compile and install an extension. Raises PipFailed, or ControlError."""
        archive = self._fetched(extension, pip)
        source = self.downloads / archive.name.removesuffix(".tar.gz")
        self._unpack(archive, source)
        try:
            objects = self._compiled(extension, isa, source, include)
            home = site_packages(self.environment) / extension.package
            shutil.copytree(source / extension.package, home, dirs_exist_ok=True)
            self._link(extension, objects, home / extension.module)
        finally:
            delete(source)

    def _fetched(self, extension: Extension, pip: Pip) -> Path:
        archive = self.downloads / extension.file
        if _sha256(archive) == extension.sha256:
            return archive
        scratch = self._scratch()
        self.progress.begin(f"fetching the source of {extension.package} {extension.version}")
        began = self.clock()
        try:
            pip.download_source(
                f"{extension.package} @ {extension.url}#sha256={extension.sha256}",
                scratch,
                describe=extension.describe,
                tick=lambda: self.progress.now(f"{self.clock() - began:.0f} s"),
            )
            (scratch / extension.file).replace(archive)
        finally:
            delete(scratch)
        self.progress.end(f"{megabytes(archive.stat().st_size)}, {self.clock() - began:.0f} s")
        return archive

    def _unpack(self, archive: Path, into: Path) -> None:
        delete(into)
        scratch = self._scratch()
        with tarfile.open(archive) as tar:
            # Its checksum is known, so is what is in it.
            tar.extractall(scratch)
        (scratch / into.name).replace(into)
        delete(scratch)

    def _compiled(self, extension: Extension, isa: Isa, source: Path, include: Path) -> list[Path]:
        """One object a source; those of an earlier try are taken where nothing has changed."""
        torch = site_packages(self.environment) / "torch" / "include"
        folders = (HEADERS, *(source / one for one in extension.include))
        system = (torch, torch / "torch/csrc/api/include", include)
        common = (
            *_COMMON,
            *(f"-D{one}" for one in extension.defines),
            *(f"-I{one}" for one in folders),
            *(word for one in system for word in ("-isystem", str(one))),
        )
        objects = []
        for at, name in enumerate(extension.sources, 1):
            options = extension.isa_for(name, isa).options_of(self.compiler)
            mark = hashlib.sha256(
                "\n".join([extension.digest, *common, *options, str(self.compiler)]).encode()
            ).hexdigest()
            folder = self.downloads / f"{_OBJECTS}{mark[:12]}"
            done = folder / f"{Path(name).stem}.o"
            if not done.is_file():
                folder.mkdir(exist_ok=True)
                step = f"compiling {name} for {isa.name} ({at} of {len(extension.sources)})"
                self._compile(step, (*common, *options, "-c", str(source / name)), done)
            objects.append(done)
        return objects

    def _compile(self, step: str, words: tuple[str, ...], into: Path) -> None:
        self.progress.begin(step)
        began = self.clock()
        half = into.with_suffix(".new")
        self._run(
            (*words, "-o", str(half)),
            step.removeprefix("compiling "),
            lambda: self.progress.now(f"{self.clock() - began:.0f} s"),
        )
        half.replace(into)
        self.progress.end(f"{self.clock() - began:.0f} s")

    def _link(self, extension: Extension, objects: list[Path], into: Path) -> None:
        torch = site_packages(self.environment) / "torch" / "lib"
        libraries = (f"-L{torch}", "-ltorch", "-ltorch_cpu", "-lc10", f"-l:{extension.library}")
        words = ("-shared", "-s", "-fopenmp", *map(str, objects), *libraries, "-o", str(into))
        self._run(words, into.name, lambda: self.progress.now(""))

    def _run(
        self, words: tuple[str, ...] | list[str], what: str, tick: Callable[[], None]
    ) -> None:
        try:
            self.compiler.run(words, self.log, tick=tick, keep_open=self.keep_open)
        except CompileFailed as error:
            raise ControlError(
                what=f"{what} could not be compiled",
                why=error.said,
                do=f"See {self.log}; a file takes up to 1.5 GB of memory. What was fetched and "
                "compiled is kept: run the same again",
            ) from None

    def _scratch(self) -> Path:
        folder = self.downloads / NEW
        delete(folder)
        folder.mkdir()
        return folder


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return ""
