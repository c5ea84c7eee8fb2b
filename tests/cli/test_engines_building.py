"""What is built into an engine's environment, by the real compiler from a few lines of C++."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import ControlError
from engine.engines.compiler import Compiler, find_compiler, require
from engine.engines.cuda_stubs import Stub, make_stubs, readelf
from engine.engines.environments import python_of
from engine.engines.extension import Extension, isa_of
from engine.engines.install import Done
from engine.engines.recipes import recipes
from tests.cli.package_index import PYTHON, Index, run_module
from tests.tiny_wheels import make_wheel

AVX2 = frozenset({"avx2", "f16c", "fma"})
AVX512 = AVX2 | {"avx512f", "avx512vl", "avx512bw", "avx512dq"}
BF16 = AVX512 | {"avx512_bf16"}

needs_gcc = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


def shared_library(file: Path, source: str, *words: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            *("g++", "-x", "c++", "-shared", "-fPIC", f"-Wl,-soname,{file.name}"),
            *("-Wl,-rpath,$ORIGIN", f"-L{file.parent}", "-o", str(file), "-", "-x", "none"),
            *words,
        ],
        input=source,
        text=True,
        check=True,
    )
    return file


# Stubs of CUDA's libraries

_RUNTIME = """
extern "C" int cudaGetDeviceCount(int *count) { *count = 5; return 0; }
extern "C" int cudaMalloc(void **, unsigned long) { return 0; }
extern "C" int cudaNobodyNeedsIt() { return 0; }
"""
_CARD = "struct Card { virtual ~Card(); virtual int heat(); };\nint &counter();\n"
_HEAVY = f"{_CARD} Card::~Card() {{}} int Card::heat() {{ return 1; }}\n" + (
    "int &counter() { static int it; return it; }\n"
)
_LIGHT = (
    "#include <typeinfo>\n" + _CARD + 'extern "C" int cudaGetDeviceCount(int *);\n'
    'extern "C" int devices() { int count; return cudaGetDeviceCount(&count); }\n'
    'extern "C" const char *name() { return typeid(Card).name(); }\n'
    'extern "C" int count() { return ++counter(); }\n'
)


@pytest.fixture
def torch(tmp_path: Path) -> Path:
    """A torch of a few lines that is linked with CUDA's libraries, half of it for GPUs alone."""
    folder = tmp_path / "torch" / "lib"
    folder.mkdir(parents=True)
    (tmp_path / "map").write_text("libcudart.so.12 { global: *; };\n")
    shared_library(
        folder / "libcudart.so.12", _RUNTIME, f"-Wl,--version-script={tmp_path / 'map'}"
    )
    shared_library(folder / "libcublas.so.12", "int many;\n")
    shared_library(folder / "libtorch_cuda.so", _HEAVY, "-l:libcudart.so.12", "-l:libcublas.so.12")
    shared_library(folder / "libtorch_cpu.so", _LIGHT, "-l:libtorch_cuda.so", "-l:libcudart.so.12")
    return folder


@needs_gcc
def test_a_cuda_torch_loads_with_stubs_and_sees_no_gpu(torch: Path, tmp_path: Path) -> None:
    user = shared_library(
        tmp_path / "vision" / "_C.so",
        'extern "C" int cudaMalloc(void **, unsigned long);\n'
        'extern "C" int got() { return cudaMalloc(nullptr, 0); }\n',
        *(f"-L{torch}", "-l:libcudart.so.12"),
    )
    (tmp_path / "work").mkdir()
    compiler = find_compiler({"PATH": os.defpath}, why="a test")

    def compile_stub(stub: Stub) -> None:
        source = tmp_path / "work" / "stub.c"
        source.write_text(stub.source)
        words = ["-x", "c", "-shared", "-fPIC", "-w", str(source), f"-Wl,-soname,{stub.library}"]
        if stub.version_script:
            (tmp_path / "work" / "map").write_text(stub.version_script)
            words.append(f"-Wl,--version-script={tmp_path / 'work' / 'map'}")
        log = tmp_path / "log"
        compiler.run([*words, "-o", str(torch / stub.library)], log, tick=lambda: None)

    real = sum(file.stat().st_size for file in torch.iterdir() if "torch_cpu" not in file.name)
    assert make_stubs(torch, [user], read=readelf, compile_stub=compile_stub) == real
    assert {file.name for file in torch.iterdir()} == {
        *("libtorch_cpu.so", "libtorch_cuda.so", "libcudart.so.12"),
    }
    assert "cudaMalloc@@libcudart.so.12" in readelf(torch / "libcudart.so.12")
    assert "cudaNobodyNeedsIt" not in readelf(torch / "libcudart.so.12")
    program = (
        "import ctypes, sys; cpu = ctypes.CDLL(sys.argv[1]); cpu.name.restype = ctypes.c_char_p; "
        "print(cpu.devices(), cpu.name().decode(), cpu.count() != 0, "
        "ctypes.CDLL(sys.argv[2]).got())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(torch / "libtorch_cpu.so"), str(user)],
        env={"LD_LIBRARY_PATH": str(torch)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["100", "4Card", "True", "100"], "")


# A compiled extension

_BACKEND = """
import os
from pathlib import Path

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    version = "1.0+" + os.environ["TINY_TARGET"]
    info = Path(folder, f"tinyext-{version}.dist-info")
    info.mkdir()
    text = f"Metadata-Version: 2.1\\nName: tinyext\\nVersion: {version}\\n"
    (info / "METADATA").write_text(text)
    return info.name

def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise RuntimeError("nobody asked to build it")
"""
_ONE = '#include "own.h"\nextern "C" int one() { return OWN + GIVEN; }\n'
_WIDE = """
#ifdef __AVX512F__
extern "C" int wide() { return 512; }
#else
extern "C" int wide() { return 256; }
#endif
"""


def source_package(folder: Path, **sources: str) -> Extension:
    """A package whose own build needs what is not here, with C++ that we compile."""
    files = {
        "pyproject.toml": '[build-system]\nrequires = ["is-not-here"]\nbuild-backend = "backend"\n'
        'backend-path = ["."]\n',
        "backend.py": _BACKEND,
        "csrc/own.h": "#define OWN 41\n",
        "tinyext/__init__.py": "import ctypes\nfrom pathlib import Path\n"
        "_C = ctypes.CDLL(str(Path(__file__).with_name('_C.so')))\n",
        **{f"csrc/{name}.cpp": text for name, text in sources.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "tinyext-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"tinyext-1.0/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return Extension(
        package="tinyext",
        version="1.0",
        url=archive.as_uri(),
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        module="_C.so",
        sources=tuple(f"csrc/{name}.cpp" for name in sources),
        plain=frozenset({"csrc/plain.cpp"}),
        include=("csrc",),
        defines=("GIVEN=1",),
        library="libm.so.6",
        describe={"TINY_TARGET": "cpu"},
    )


@pytest.fixture
def compiling(index: Index, tmp_path: Path) -> Index:
    """An index whose torch has libraries to link with, and a Python that has headers."""
    if not headers().is_file():
        pytest.skip("Python's headers are not here")
    libraries = tmp_path / "libraries"
    more = {
        f"torch/lib/{name}": shared_library(libraries / name, "int none;\n").read_bytes()
        for name in ("libtorch.so", "libtorch_cpu.so", "libc10.so")
    }
    make_wheel(index.folder, "torch", "1.0+cpu", more=more)
    return index


def headers() -> Path:
    program = "import sysconfig; print(sysconfig.get_path('include'))"
    return Path(run_module(Path(sys.executable), program)) / "Python.h"


def install(index: Index, extension: Extension, **changes: Any) -> Done:
    recipe = index.recipe(
        extension=extension,
        aliases={"tinyext": "1.0+cpu"},
        **{"modules": ("torch", "tinyext"), **changes},
    )
    return index.install(recipe, processor=AVX512)


@needs_gcc
def test_an_extension_is_fetched_compiled_and_linked(compiling: Index, tmp_path: Path) -> None:
    extension = source_package(tmp_path / "source", one=_ONE, plain=_WIDE)
    done = install(compiling, extension)
    program = (
        "import tinyext, importlib.metadata as m; print(tinyext._C.one(), tinyext._C.wide(), "
        "m.version('tinyext'))"
    )
    assert run_module(done.folder / "bin/python", program) == "42 256 1.0+cpu"
    steps = " ".join(compiling.notes.steps)
    assert "fetching the source of tinyext 1.0" in steps
    assert "compiling csrc/one.cpp for avx512 (1 of 2)" in steps
    assert compiling.folders() == {done.folder.name}


@needs_gcc
def test_what_is_compiled_is_kept_when_the_rest_is_interrupted(
    compiling: Index, tmp_path: Path
) -> None:
    extension = source_package(tmp_path / "source", one=_ONE, two=_WIDE)

    def interrupt(step: str) -> None:
        if step.startswith("compiling csrc/two.cpp"):
            raise KeyboardInterrupt

    compiling.notes.on_step = interrupt
    with pytest.raises(KeyboardInterrupt):
        install(compiling, extension)
    assert python_of("ipex", compiling.data) is None
    assert compiling.folders() == {"downloads"}
    (tmp_path / "source" / "tinyext-1.0.tar.gz").unlink()
    compiling.notes.steps.clear()
    compiling.notes.on_step = lambda step: None
    install(compiling, extension)
    steps = " ".join(compiling.notes.steps)
    assert "compiling csrc/two.cpp" in steps
    assert "csrc/one.cpp" not in steps
    assert "fetching the source" not in steps


@needs_gcc
def test_a_source_that_does_not_compile_leaves_the_old_engine(
    compiling: Index, tmp_path: Path
) -> None:
    old = compiling.install()
    extension = source_package(tmp_path / "source", one="int main() { return nothing; }\n")
    with pytest.raises(ControlError) as caught:
        install(compiling, extension)
    assert "csrc/one.cpp for avx512" in caught.value.what
    assert "error: 'nothing' was not declared" in caught.value.why
    assert "run the same again" in caught.value.do
    assert python_of("ipex", compiling.data) == old.folder / "bin/python"


@needs_gcc
def test_another_source_than_the_known_one_is_not_taken(compiling: Index, tmp_path: Path) -> None:
    extension = source_package(tmp_path / "source", one=_ONE)
    source_package(tmp_path / "source", one=_ONE, evil=_WIDE)
    with pytest.raises(ControlError, match="could not be installed"):
        install(compiling, extension)
    assert "nobody asked" not in (compiling.home / "install.log").read_text()
    assert not list(compiling.home.rglob("tinyext-1.0.tar.gz"))


# What is missing


def test_without_a_compiler_nothing_is_fetched(index: Index, tmp_path: Path) -> None:
    index.environment["PATH"] = str(tmp_path)
    extension = source_package(tmp_path / "source", one=_ONE)
    with pytest.raises(ControlError) as caught:
        install(index, extension)
    assert caught.value.what == "There is no C++ compiler"
    assert "a part of ipex is compiled for this machine" in caught.value.why
    assert "apt install g++" in caught.value.do
    assert index.notes.steps == []
    assert index.folders() == set()


def test_an_old_compiler_is_told_by_its_number(tmp_path: Path) -> None:
    program = tmp_path / "g++"
    program.write_text("#!/bin/sh\necho 7.5.0\n")
    program.chmod(0o755)
    with pytest.raises(ControlError) as caught:
        find_compiler({"PATH": str(tmp_path)}, why="a part is compiled")
    assert "9 or newer" in caught.value.why
    assert "is 7.5.0" in caught.value.why


@needs_gcc
def test_headers_and_libraries_are_looked_for_first(tmp_path: Path) -> None:
    compiler = find_compiler({"PATH": os.defpath}, why="a part is compiled")
    with pytest.raises(ControlError, match=r"apt install python3\.11-dev"):
        require(compiler, "libm.so.6", tmp_path / "python3.11" / "Python.h", why="it is")
    header = tmp_path / "Python.h"
    header.touch()
    require(compiler, "libm.so.6", header, why="it is")
    with pytest.raises(ControlError, match="apt install libnuma1"):
        require(compiler, "libnuma.so.77", header, why="it is")


@pytest.mark.parametrize(
    ("processor", "name"),
    [(AVX2, "avx2"), (AVX512, "avx512"), (BF16, "avx512-bf16"), (AVX512 - {"avx512dq"}, "avx2")],
)
def test_the_best_instructions_that_a_processor_has(processor: frozenset[str], name: str) -> None:
    isa = isa_of(processor)
    assert isa is not None
    assert isa.name == name
    old = Compiler("g++", (12, 2, 0), {})
    assert "-mavx512bf16" not in isa.options_of(old)
    assert ("-mavx512bf16" in isa.options_of(Compiler("g++", (13, 1), {}))) == (name[-1] == "6")


def test_a_processor_without_them_is_told(index: Index, tmp_path: Path) -> None:
    assert isa_of(frozenset({"sse2"})) is None
    assert isa_of(None) is None
    recipe = index.recipe(extension=source_package(tmp_path, one=_ONE))
    with pytest.raises(ControlError, match="it needs AVX2"):
        index.install(recipe, processor=frozenset({"sse2"}))


def test_a_key_names_the_instructions_too() -> None:
    own = recipes()["ipex-llm"]
    keys = {
        own.key(build, PYTHON, isa_of(processor))
        for build in own.builds
        for processor in (AVX2, AVX512, BF16)
    }
    assert len(keys) == 6
    assert recipes()["torch"].key("cpu", PYTHON) == recipes()["torch"].key(
        "cpu", PYTHON, isa_of(AVX2)
    )
