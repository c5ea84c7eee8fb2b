"""A Linux kernel for guests: Debian's packages, unpacked into a cache folder, never installed."""

import gzip
import io
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.bundled_model import cache_directory

_SHELL = "busybox-static"
"""Does everything in the guest until this machine's own programs are there."""
_KERNEL = "linux-image-amd64"


class CannotBoot(Exception):
    """Says what happened, why, and what the reader can do about it."""

    def __init__(self, *, what: str, why: str, do: str) -> None:
        super().__init__(f"{what}: {why}. {do}")


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel package, and the shell that begins in it."""

    folder: Path

    @property
    def image(self) -> Path:
        return next((self.folder / "boot").glob("vmlinuz-*"))

    @property
    def shell(self) -> Path:
        return self.folder / "bin/busybox"

    def modules(self, wanted: Iterable[str]) -> list[tuple[str, bytes]]:
        """Those modules and what they depend on, in the order to load them; what is not there is
        built in."""
        files = {
            _plain(path.name.partition(".ko")[0]): path
            for path in (self.folder / "lib/modules").rglob("*.ko*")
        }
        found: dict[str, bytes] = {}

        def add(name: str) -> None:
            if name in found or name not in files:
                return
            octets = files[name].read_bytes()
            if files[name].suffix == ".xz":  # from Debian 13 on
                octets = lzma.decompress(octets)
            needs = re.search(rb"\0depends=([^\0]*)\0", octets)
            for other in (needs.group(1).decode() if needs else "").split(","):
                add(_plain(other))
            found[name] = octets

        for name in wanted:
            add(_plain(name))
        return list(found.items())


def _plain(name: str) -> str:
    return name.replace("-", "_")


def debian_kernel() -> Kernel:
    """From the cache, or fetched into it: about 70 MB, of which it keeps the parts that guests
    need. Raises CannotBoot."""
    kernel = Kernel(cache_directory() / "guest-kernel")
    if not kernel.folder.is_dir():
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise CannotBoot(
                    what="No kernel for a guest",
                    why=f"it comes from Debian's packages, and there is no {program} here",
                    do=f"Unpack {_KERNEL} and {_SHELL} of another machine into {kernel.folder}",
                )
        kernel.folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".guest-kernel.", dir=kernel.folder.parent))
        try:
            _fetch(fresh)
            fresh.rename(kernel.folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return kernel


def _fetch(folder: Path) -> None:
    depends = _told(["apt-cache", "depends", _KERNEL], folder)
    image = re.search(r"Depends: (linux-image-\S+)", depends)
    if image is None:
        raise CannotBoot(
            what="No kernel for a guest",
            why=f"apt knows no {_KERNEL}",
            do="Run `apt-get update` as root, on Debian",
        )
    packages = [image.group(1), _SHELL]
    _told(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *packages], folder)
    for package in folder.glob("*.deb"):
        _told(["dpkg-deb", "--extract", package.name, "."], folder)
        package.unlink()
    modules = next((folder / "lib/modules").iterdir()) / "kernel"
    kept = (
        *("drivers/virtio", "drivers/block/virtio_blk", "drivers/gpu/drm", "net/9p", "fs/9p"),
        *("fs/netfs", "fs/fscache", "fs/ext4", "fs/jbd2", "fs/mbcache", "lib/crc", "crypto/crc"),
    )
    for path in list(modules.rglob("*.ko*")):
        if not path.relative_to(modules).as_posix().startswith(kept):
            path.unlink()


def _told(words: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        raise CannotBoot(
            what="No kernel for a guest",
            why=f"`{' '.join(words)}` failed: {error.stderr.strip()[-300:]}",
            do="Run `apt-get update` as root, with a network",
        ) from None
    return done.stdout


def initramfs(files: Iterable[tuple[str, int, bytes]]) -> bytes:
    """A compressed cpio archive ("newc") of names, modes and contents, and of a console."""
    archive = io.BytesIO()
    entries = [(*one, (0, 0)) for one in files]
    entries += [("dev", 0o40755, b"", (0, 0)), ("dev/console", 0o20600, b"", (5, 1))]
    for number, (name, mode, octets, device) in enumerate(
        (*entries, ("TRAILER!!!", 0, b"", (0, 0))), start=1
    ):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(octets), 0, 0, *device, len(path), 0)
        archive.write(b"070701" + b"".join(b"%08x" % field for field in fields))
        for part in (path, octets):
            archive.write(part)
            archive.write(b"\0" * (-archive.tell() % 4))
    return gzip.compress(archive.getvalue(), 1)
