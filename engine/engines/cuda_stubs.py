"""Stubs in the place of CUDA's libraries: a torch that was built for CUDA starts without them.

The package index has no torch for CPUs alone, and the one that it has wants several GB of
libraries for GPUs that are not there. Each stub has the name of a library, and the symbols of it
that torch's CPU half and what is linked with torch would look for, in their versions.
"""

import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

CUDA = re.compile(r"lib(cu|nccl|nvrtc|nvToolsExt|torch_cuda)")
"""Libraries of CUDA's, and those of torch that only compute with it."""
_JUST_IN_TIME = "libcaffe2_nvrtc.so"
"""Of torch's, loaded only where there is such a GPU."""
_NO_DEVICE = 100
"""cudaErrorNoDevice."""
_RTTI = "_ZTI"


@dataclass(frozen=True, slots=True)
class Symbol:
    """What a library looks for, or has."""

    name: str
    version: str
    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class Stub:
    """One library to make: its source, and which symbols have a version."""

    library: str
    source: str
    version_script: str


Reader = Callable[..., str]


def make_stubs(
    torch: Path, users: Iterable[Path], *, read: Reader, compile_stub: Callable[[Stub], None]
) -> int:
    """Put stubs into torch's folder of libraries; returns the bytes that they save.

    `users` are other libraries that are linked with torch, `read` is `readelf`.
    """
    dropped = [file for file in torch.iterdir() if is_for_cuda(file.name)]
    stubs = plan_stubs(torch, users, dropped, read)
    saved = 0
    for file in dropped:
        saved += file.stat().st_size
        file.unlink()
    for stub in stubs:
        compile_stub(stub)
    return saved


def is_for_cuda(library: str) -> bool:
    """Whether a library of torch's folder has no use without such a GPU."""
    return bool(CUDA.match(library)) or library == _JUST_IN_TIME


def plan_stubs(
    torch: Path, users: Iterable[Path], dropped: Iterable[Path], read: Reader
) -> list[Stub]:
    """The stubs that the rest of torch, and `users`, must find."""
    kept = [file for file in torch.iterdir() if ".so" in file.name]
    kept = [*(file for file in kept if not is_for_cuda(file.name)), *users]
    real = {
        file.name: {one.name: one for one in _symbols(read(file)) if one.kind != "UND"}
        for file in dropped
    }
    wanted: dict[str, dict[str, Symbol]] = {}
    for file in kept:
        text = read(file)
        needed = [name for name in re.findall(r"\(NEEDED\).*\[(.+)\]", text) if CUDA.match(name)]
        for name in needed:
            wanted.setdefault(name, {})
        for one in _symbols(text):
            if one.kind != "UND":
                continue
            if one.version in needed:
                wanted[one.version][one.name] = one
                continue
            for name in needed:
                # Without a version only the library itself tells what is in it.
                if found := real.get(name, {}).get(one.name):
                    wanted[name][one.name] = found
    return [_stub(library, symbols) for library, symbols in sorted(wanted.items())]


def readelf(file: Path) -> str:
    """What a library needs, and its symbols, nothing for what is none; g++ brings the tool."""
    done = subprocess.run(
        ["readelf", "--wide", "--dynamic", "--dyn-syms", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def _symbols(text: str) -> Iterable[Symbol]:
    for line in text.splitlines():
        # Num: Value Size Type Bind Vis Ndx Name@Version
        words = line.split()
        if len(words) < 8 or not words[0][:-1].isdigit():
            continue
        name, _, version = words[7].partition("@")
        kind = "UND" if words[6] == "UND" else words[3]
        if kind != "UND" or words[4] != "WEAK":
            yield Symbol(name, version.lstrip("@"), kind, int(words[2], 0))


def _stub(library: str, symbols: Mapping[str, Symbol]) -> Stub:
    lines = [
        "extern const void *_ZTVN10__cxxabiv117__class_type_infoE[];",
        # Enough for whoever is given it as an object and writes into it.
        "static long nothing[1024];",
        *(_line(one) for _, one in sorted(symbols.items())),
    ]
    has_versions = any(one.version for one in symbols.values())
    script = f"{library} {{ global: *; }};\n" if has_versions else ""
    return Stub(library, "\n".join(lines) + "\n", script)


def _line(one: Symbol) -> str:
    """C for one symbol: what it answers must keep torch from going on with a GPU."""
    if one.name.startswith(_RTTI):
        # Python classes are made of it while torch is imported: it must have a name.
        label = one.name.removeprefix(_RTTI)
        vtable = "&_ZTVN10__cxxabiv117__class_type_infoE[2]"
        return f'const void *{one.name}[] = {{ {vtable}, "{label}", 0 }};'
    if one.kind == "OBJECT":
        return f"char {one.name}[{one.size}];"
    if one.name.startswith("_Z"):
        return f"void *{one.name}(void) {{ return nothing; }}"
    if one.name.startswith("cudaGetError"):
        return f'const char *{one.name}(void) {{ return "no CUDA here"; }}'
    return f"int {one.name}(void) {{ return {_NO_DEVICE if one.name.startswith('cuda') else 0}; }}"
