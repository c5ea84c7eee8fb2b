"""Boots a throw-away machine with several NUMA nodes and runs one command in it (QEMU).

    python -m tests.numa.guest "numactl -H"

Its root is this machine's root, read-only; the work folder is writable, at the same path; a folder
may come along as a disk, on /mnt; what else is written is gone when it ends. QEMU emulates the
processors, so a guest of any shape runs on any machine, about 25 times slower for Python. There is
no difference in speed between its nodes.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.service.loads import BOUND
from tests.numa.kernel import CannotBoot, debian_kernel, initramfs

QEMU = "qemu-system-x86_64"
_ENDED_WITHOUT_WORD = 125
_INIT = r"""#!/bin/busybox sh
B=/bin/busybox
$B mkdir -p /proc /sys /host /told
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs dev /dev
for module in $($B cat /modules); do $B insmod /$module; done
share() { $B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,$3 $1 "$2"; }
share root /host cache=loose,ro
share told /told cache=none
for folder in tmp run var/tmp; do $B mount -t tmpfs tmpfs /host/$folder; done
$B mount -t proc proc /host/proc
$B mount -t sysfs sysfs /host/sys
$B mount -t cgroup2 cgroup2 /host/sys/fs/cgroup
$B mount --bind /dev /host/dev
$B mkdir -p /dev/shm /dev/pts
$B mount -t tmpfs tmpfs /host/dev/shm
$B mount -t devpts -o mode=620,ptmxmode=666 devpts /host/dev/pts
$B ip link set lo up
[ -e /dev/vda ] && $B mount -t ext4 /dev/vda /host/mnt
work=$($B cat /told/work)
$B mkdir -p "/host$work"
share work "/host$work" cache=none
$B chroot /host /bin/sh -c "cd '$work' && $($B cat /told/command)" </dev/null >/told/output 2>&1
echo $? >/told/code
$B sync
$B poweroff -f
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the machine is made of: `cores` of each of `dies` of each of `sockets`."""

    sockets: int = 2
    dies: int = 1
    cores: int = 2
    threads: int = 1
    nodes: int = 0
    """NUMA nodes with processors; 0 is one for each socket."""
    memory_only: int = 0
    """More nodes, with memory only."""
    node_mib: int = 400
    cards: tuple[str, ...] = ("virtio-rng-pci",)
    """Devices of QEMU that hang on each node's own root bus."""
    modules: tuple[str, ...] = ()
    """Drivers for those, by the kernel's names."""
    processor: str = "max"
    boot: str = ""
    """More words for the kernel."""

    @property
    def cpus(self) -> int:
        return self.sockets * self.dies * self.cores * self.threads

    @property
    def home_nodes(self) -> int:
        return self.nodes or self.sockets

    @property
    def all_nodes(self) -> int:
        return self.home_nodes + self.memory_only


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of the command."""

    code: int
    output: str
    seconds: float
    console: str
    """What the kernel said."""


def why_not() -> str:
    """Why no guest can be booted here, and what to do; empty where one can."""
    if platform.machine() != "x86_64":
        return f"guests are x86-64 machines with this one's root, which is {platform.machine()}"
    if shutil.which(QEMU) is None:
        return f"{QEMU} is not installed: `apt-get install qemu-system-x86`"
    if not _mke2fs():
        return "mke2fs is not installed: `apt-get install e2fsprogs`"
    try:
        debian_kernel()
    except CannotBoot as error:
        return str(error)
    return ""


def run(
    shape: Shape, command: str, *, work: Path, within_s: float, disk: Path | None = None
) -> Ended:
    """Boot, run it by `sh` in the work folder, and wait for its end. Raises CannotBoot."""
    kernel = debian_kernel()
    modules = kernel.modules(
        (
            "virtio_pci",
            "9pnet_virtio",
            "9p",
            "virtio_blk",
            "crc32c_generic",
            "ext4",
            *shape.modules,
        )
    )
    files = [
        ("init", 0o100755, _INIT.encode()),
        ("bin", 0o40755, b""),
        ("bin/busybox", 0o100755, kernel.shell.read_bytes()),
        ("modules", 0o100644, "\n".join(name for name, _ in modules).encode()),
        *((name, 0o100644, octets) for name, octets in modules),
    ]
    path = os.environ["PATH"]  # noqa: TID251 - the guest has this machine's programs
    words = f"export PATH='{path}' HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1; {command}"
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="guest-") as folder:
        told = Path(folder)
        (told / "work").write_text(str(work))
        (told / "command").write_text(words)
        (told / "initramfs").write_bytes(initramfs(files))
        argv = [
            # Whatever ends us, the guest ends too.
            *(
                sys.executable,
                "-I",
                "-S",
                str(BOUND),
                str(os.getpid()),
                shutil.which(QEMU) or QEMU,
            ),
            *(*_machine(shape), *_memory(shape), *_cards(shape)),
            *("-kernel", str(kernel.image), "-initrd", str(told / "initramfs")),
            *("-append", f"{_BOOT} {shape.boot}", "-serial", f"file:{told / 'console'}"),
            *_folder("root", Path("/"), "readonly=on,multidevs=remap"),
            *_folder("work", work, "multidevs=remap"),
            *_folder("told", told, "multidevs=remap"),
            *(_disk(disk, told / "disk") if disk else ()),
        ]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as qemu:
            try:
                qemu.wait(within_s)
            except subprocess.TimeoutExpired:
                pass
            finally:
                qemu.kill()
        said = {name: _text(told / name) for name in ("output", "console", "code")}
    code = int(said["code"] or _ENDED_WITHOUT_WORD)
    return Ended(code, said["output"], time.monotonic() - begun, said["console"])


_BOOT = (
    "console=ttyS0 panic=-1 quiet rdinit=/init random.trust_cpu=on tsc=unstable no_timer_check "
    "numa_balancing=disable"
)
"""Emulated clocks drift; and nothing but us shall move pages."""


def _machine(shape: Shape) -> Iterator[str]:
    # A /dev/kvm on a processor without these is software as well, and cannot run every kernel.
    has_kvm = re.search(r"\b(svm|vmx)\b", Path("/proc/cpuinfo").read_text())
    quick = has_kvm and os.access("/dev/kvm", os.R_OK | os.W_OK)
    yield from ("-accel", "kvm" if quick else "tcg,thread=multi", "-cpu", shape.processor)
    yield from ("-machine", f"q35,hmat={'on' if shape.memory_only else 'off'}")
    yield from (
        "-smp",
        f"{shape.cpus},sockets={shape.sockets},dies={shape.dies},cores={shape.cores},"
        f"threads={shape.threads}",
    )
    yield from ("-nodefaults", "-display", "none", "-no-reboot")


def _memory(shape: Shape) -> Iterator[str]:
    """Nodes with their distances; memory-only nodes belong to a socket's first node each."""
    homes, share = shape.home_nodes, shape.cpus // shape.home_nodes
    per_socket = max(1, homes // shape.sockets)
    yield from ("-m", f"{shape.all_nodes * shape.node_mib}M")
    for node in range(shape.all_nodes):
        yield from ("-object", f"memory-backend-ram,id=memory{node},size={shape.node_mib}M")
        home = node if node < homes else (node - homes) * per_socket % homes
        cpus = f",cpus={node * share}-{(node + 1) * share - 1}" if node < homes else ""
        near = f",initiator={home}" if shape.memory_only else ""
        yield from ("-numa", f"node,nodeid={node},memdev=memory{node}{cpus}{near}")
    sockets = [
        node // per_socket if node < homes else (node - homes) % shape.sockets
        for node in range(shape.all_nodes)
    ]
    for one in range(shape.all_nodes):
        for other in range(one + 1, shape.all_nodes):
            apart = sockets[one] != sockets[other]
            far = other >= homes
            distance = {(0, 0): 12, (0, 1): 21, (1, 0): 24, (1, 1): 34}[far, apart]
            yield from ("-numa", f"dist,src={one},dst={other},val={distance}")
    if shape.memory_only:
        for one in range(homes):
            for other in range(shape.all_nodes):
                latency, bandwidth = (100, 200) if one == other else (250, 60)
                link = f"initiator={one},target={other},hierarchy=memory"
                yield from ("-numa", f"hmat-lb,{link},data-type=access-latency,latency={latency}")
                link += f",data-type=access-bandwidth,bandwidth={bandwidth}G"
                yield from ("-numa", f"hmat-lb,{link}")


def _cards(shape: Shape) -> Iterator[str]:
    for node in range(shape.home_nodes):
        bus = f"pxb-pcie,id=bus{node},bus_nr={32 * (node + 1)},bus=pcie.0,numa_node={node}"
        yield from ("-device", bus)
        for place, card in enumerate(shape.cards):
            port = f"port{node}.{place}"
            number = node * len(shape.cards) + place + 1
            yield from (
                "-device",
                f"pcie-root-port,id={port},bus=bus{node},chassis={number},addr={place:x}.0",
            )
            yield from ("-device", f"{card},bus={port}")


def _folder(tag: str, path: Path, options: str) -> Iterator[str]:
    yield from ("-fsdev", f"local,id={tag},path={path},security_model=none,{options}")
    yield from ("-device", f"virtio-9p-pci,bus=pcie.0,fsdev={tag},mount_tag={tag}")


def _disk(folder: Path, image: Path) -> Iterator[str]:
    """A file system with the folder's files and some room, which the guest caches in memory."""
    size = sum(path.stat().st_size for path in folder.rglob("*")) >> 20
    words = [_mke2fs(), "-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum"]
    words += ["-d", str(folder), str(image), f"{size * 5 // 4 + 16}M"]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    yield from ("-drive", f"file={image},if=none,id=disk,format=raw,cache=unsafe")
    yield from ("-device", "virtio-blk-pci,bus=pcie.0,drive=disk")


def _mke2fs() -> str:
    return shutil.which("mke2fs", path=f"{os.defpath}:/sbin:/usr/sbin") or ""


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


if __name__ == "__main__":
    if missing := why_not():
        sys.exit(f"No guest can be booted: {missing}")
    ended = run(Shape(), " ".join(sys.argv[1:]), work=Path.cwd(), within_s=600)
    sys.stdout.write(ended.output)
    if ended.code == _ENDED_WITHOUT_WORD:
        sys.stderr.write(ended.console)
    sys.exit(ended.code)
