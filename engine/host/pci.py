"""PCI functions as sysfs shows them: class, ids, bridges above, BARs and links.

Documentation/ABI/testing/sysfs-bus-pci; the layout of the configuration space is the PCI Express
base specification's (registers 7.5.1, Resizable BAR 7.8.6).
"""

import re
import struct
from collections.abc import Container
from dataclasses import dataclass

from engine.host.device_root import DeviceRoot

DEVICES = "sys/bus/pci/devices"
ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
"""Domain (wider than 16 bits behind Intel's VMD), bus, device, function."""
_HOST_BRIDGE = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}")

_BARS = 6
# IORESOURCE_MEM and IORESOURCE_UNSET of include/linux/ioport.h.
_IS_MEMORY = 0x200
_IS_UNSET = 0x20000000
_REBAR = 0x15
"""Id of the Resizable BAR capability in the extended configuration space."""


@dataclass(frozen=True, slots=True)
class PciDevice:
    """One function on PCI."""

    address: str
    folder: str
    """Its place in the device tree, as a name under the root; bridges are its parents."""
    class_code: int | None
    """24 bits: class, subclass, programming interface."""
    vendor: str | None
    device: str | None

    @property
    def order(self) -> tuple[int, ...]:
        """Sorts by domain, bus, device, function as numbers."""
        return tuple(int(part, 16) for part in re.split("[:.]", self.address))

    @property
    def path(self) -> tuple[str, ...]:
        """PCI addresses from the root port to this function, which is the last."""
        parts = self.folder.split("/")
        hosts = [index for index, part in enumerate(parts) if _HOST_BRIDGE.fullmatch(part)]
        # Behind VMD a second host bridge starts a tree of its own inside the first.
        below = parts[hosts[-1] + 1 :] if hosts else parts[-1:]
        return tuple(part for part in below if ADDRESS.fullmatch(part))

    @property
    def host_bridge(self) -> str | None:
        """The folder of the root bus, e.g. `sys/devices/pci0000:40`."""
        head, found, _ = self.folder.partition(f"/{self.path[0]}") if self.path else ("", "", "")
        return head if found else None

    def above(self, address: str) -> str:
        """The folder of a bridge on this function's path."""
        return self.folder.partition(f"/{address}")[0] + f"/{address}"


@dataclass(frozen=True, slots=True)
class Bar:
    """A memory window of a function; `address` is None where firmware gave it none."""

    number: int
    size_bytes: int
    address: int | None


@dataclass(frozen=True, slots=True)
class Link:
    """A PCIe link as it is trained now: speed of a lane and how many lanes."""

    gt_s: float
    width: int

    @property
    def order(self) -> float:
        """Grows with what the link carries; good for comparing links, not a throughput."""
        return self.gt_s * self.width


def find_devices(root: DeviceRoot, classes: Container[int]) -> tuple[PciDevice, ...] | None:
    """Every function of these base classes (or of an unreadable one), by address.

    None where this kernel has no PCI. A server has a thousand functions, so of the others nothing
    but `class` is read.
    """
    folders = {
        name: root.link(f"{DEVICES}/{name}")
        for name in root.names(DEVICES)
        if ADDRESS.fullmatch(name)
    }
    found = {name: folder for name, folder in folders.items() if folder is not None}
    if len(found) < len(folders) or not found:
        # A recorded tree may have lost its links; the devices stand below their bridges anyway.
        walked = dict(_walk(root, "sys/devices"))
        found = {**walked, **found}
        for name in folders.keys() - found.keys():
            found[name] = f"{DEVICES}/{name}"
    hosts = any(_HOST_BRIDGE.fullmatch(name) for name in root.names("sys/devices"))
    if not found and not hosts:
        return None
    devices = [
        _device(root, name, folder, code)
        for name, folder in found.items()
        if (code := read_hex(root, f"{folder}/class", 0xFFFFFF)) is None or code >> 16 in classes
    ]
    return tuple(
        device
        for device in sorted(devices, key=lambda device: device.order)
        if device.class_code is None or device.class_code >> 16 in classes
    )


def _walk(root: DeviceRoot, folder: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name in root.names(folder):
        inside = f"{folder}/{name}"
        if ADDRESS.fullmatch(name):
            found.append((name, inside))
        if ADDRESS.fullmatch(name) or _HOST_BRIDGE.fullmatch(name):
            found += _walk(root, inside)
    return found


def _device(root: DeviceRoot, address: str, folder: str, code: int | None) -> PciDevice:
    """Ids from `vendor` and `device`; what is not readable from `uevent`, else from `config`."""
    vendor = read_hex(root, f"{folder}/vendor", 0xFFFE)
    device = read_hex(root, f"{folder}/device", 0xFFFE)
    if code is None or vendor is None or device is None:
        told = re.search(
            r"^PCI_CLASS=([0-9A-Fa-f]{1,6})$(?:.*?)^PCI_ID=([0-9A-Fa-f]{4}):([0-9A-Fa-f]{4})$",
            root.text(f"{folder}/uevent") or "",
            re.MULTILINE | re.DOTALL,
        )
        header = root.octets(f"{folder}/config", 64) or b""
        if told:
            spare = [int(word, 16) for word in told.groups()]
        elif len(header) == 64 and header[:2] not in (b"\xff\xff", b"\0\0"):
            ids = struct.unpack("<HH", header[:4])
            spare = [int.from_bytes(header[9:12], "little"), *ids]
        else:
            spare = []
        if spare:
            code = spare[0] if code is None else code
            vendor = spare[1] if vendor is None else vendor
            device = spare[2] if device is None else device
    return PciDevice(
        address=address,
        folder=folder,
        class_code=code,
        vendor=None if vendor is None else f"{vendor:04x}",
        device=None if device is None else f"{device:04x}",
    )


def read_hex(root: DeviceRoot, name: str, most: int) -> int | None:
    """A number as the kernel writes ids (`0x8086`); None where absent, garbage or too large."""
    text = root.line(name) or ""
    if not re.fullmatch(r"0x[0-9a-fA-F]{1,16}", text):
        return None
    value = int(text, 16)
    return value if value <= most else None


def read_bars(root: DeviceRoot, device: PciDevice) -> tuple[Bar, ...]:
    """Memory BARs from `resource` (start, end and flags of each), else from `config`."""
    text = root.line(f"{device.folder}/resource")
    if text is None:
        return _bars_of_config(root.octets(f"{device.folder}/config", 4096) or b"")
    bars: list[Bar] = []
    # The lines after the six BARs are the ROM, virtual functions' BARs and bridge windows.
    lines = [
        re.fullmatch(r"0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16})", line)
        for line in text.splitlines()[:_BARS]
    ]
    told = [words for words in lines if words is not None]
    if len(told) < _BARS:
        return ()  # of the others one may be the largest
    for number, words in enumerate(told):
        start, end, flags = (int(word, 16) for word in words.groups())
        if flags & _IS_MEMORY and end > start:
            unset = flags & _IS_UNSET or start == 0
            bars.append(Bar(number, end - start + 1, None if unset else start))
    return tuple(bars)


def _bars_of_config(config: bytes) -> tuple[Bar, ...]:
    """The BARs whose size the Resizable BAR capability tells; others' sizes are not readable."""
    sizes = {number: size for number, size, _ in _rebar(config)}
    bars: list[Bar] = []
    for number, size in sizes.items():
        low, high = struct.unpack_from("<II", config, 0x10 + 4 * number)
        wide = low & 0x6 == 0x4
        if low & 1 or (wide and number == _BARS - 1):
            continue  # an I/O BAR, or one whose upper half has no room: garbage
        address = (low & ~0xF) | (high << 32 if wide else 0)
        bars.append(Bar(number, size, address or None))
    return tuple(bars)


def read_bar_sizes(root: DeviceRoot, device: PciDevice, number: int) -> tuple[int, ...] | None:
    """Sizes that a BAR can be given, from `resourceN_resize`, else from `config`; None unknown.

    The kernel shows the first from 6.1 on; of the second, unprivileged readers get 64 bytes.
    """
    text = root.line(f"{device.folder}/resource{number}_resize") or ""
    if re.fullmatch(r"[0-9a-f]{1,16}", text):
        bits = int(text, 16)
        return tuple(1 << (20 + bit) for bit in range(64) if bits >> bit & 1) or None
    config = root.octets(f"{device.folder}/config", 4096) or b""
    return next((sizes for bar, _, sizes in _rebar(config) if bar == number), None)


def _rebar(config: bytes) -> list[tuple[int, int, tuple[int, ...]]]:
    """BAR number, size now and sizes supported, of each entry of the Resizable BAR capability."""
    offset = _rebar_offset(config)
    return [] if offset is None else _rebar_entries(config, offset)


def _rebar_offset(config: bytes) -> int | None:
    if len(config) < 4096 or config[:2] == b"\xff\xff":
        return None
    offset, seen = 0x100, set[int]()
    while 0x100 <= offset <= 4096 - 12 and offset not in seen:
        seen.add(offset)
        (header,) = struct.unpack_from("<I", config, offset)
        if header & 0xFFFF == _REBAR:
            return offset
        offset = header >> 20 & 0xFFC
    return None


def public_config(config: bytes) -> bytes:
    """The part of a configuration space that we read: its header and the Resizable BARs.

    Other capabilities are left out, as one of them is the device's serial number.
    """
    offset = _rebar_offset(config)
    if offset is None:
        return config[:64]
    length = 4 + 8 * len(_rebar_entries(config, offset))
    public = bytearray(4096)
    public[:64] = config[:64]
    public[0x100 : 0x100 + length] = config[offset : offset + length]
    struct.pack_into("<I", public, 0x100, _REBAR | 1 << 16)  # version 1, and no next one
    return bytes(public)


def _rebar_entries(config: bytes, offset: int) -> list[tuple[int, int, tuple[int, ...]]]:
    entries: list[tuple[int, int, tuple[int, ...]]] = []
    (first,) = struct.unpack_from("<I", config, offset + 8)
    for index in range(first >> 5 & 7):
        if offset + 12 + 8 * index > len(config):
            break
        able, control = struct.unpack_from("<II", config, offset + 4 + 8 * index)
        # Bit 4 stands for 1 MiB; the control register's bits 16 and up continue after bit 31.
        bits = (able >> 4) | (control >> 16) << 28
        sizes = tuple(1 << (20 + bit) for bit in range(44) if bits >> bit & 1)
        now = control >> 8 & 0x3F
        if sizes and control & 7 < _BARS and now < 44:
            entries.append((control & 7, 1 << (20 + now), sizes))
    return entries


def read_link(root: DeviceRoot, folder: str, which: str = "current") -> Link | None:
    """`current_link_speed` and `current_link_width`, or `max_…`; None where there is no link."""
    speed = re.fullmatch(
        r"(\d{1,3}(?:\.\d)?) GT/s(?: PCIe)?", root.line(f"{folder}/{which}_link_speed") or ""
    )
    width = root.line(f"{folder}/{which}_link_width") or ""
    # 0 lanes: no link. 255: the register could not be read.
    if speed is None or not re.fullmatch(r"[1-9]|[123]\d", width) or float(speed.group(1)) <= 0:
        return None
    return Link(float(speed.group(1)), int(width)) if int(width) <= 32 else None
