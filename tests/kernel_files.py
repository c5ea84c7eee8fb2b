"""Files of /sys and /proc as the kernel writes them, for trees written in a test."""

from pathlib import Path

from engine.core.topology import Machine
from engine.host.root import HostRoot


def tree(root: Path, files: dict[str, str | bytes]) -> HostRoot:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return HostRoot(root)


def cpu(
    pu: int, siblings: str | None, package: str = "0", core: str = "0"
) -> dict[str, str | bytes]:
    folder = f"sys/devices/system/cpu/cpu{pu}/topology"
    files: dict[str, str | bytes] = {
        f"{folder}/physical_package_id": f"{package}\n",
        f"{folder}/core_id": f"{core}\n",
    }
    if siblings is not None:
        files[f"{folder}/thread_siblings_list"] = f"{siblings}\n"
    return files


def node(index: int, cpus: str, distance: str, kib: int = 1024) -> dict[str, str | bytes]:
    folder = f"sys/devices/system/node/node{index}"
    return {
        f"{folder}/cpulist": f"{cpus}\n",
        f"{folder}/distance": f"{distance}\n",
        f"{folder}/meminfo": f"Node {index} MemTotal:  {kib} kB\nNode {index} MemFree: 8 kB\n",
    }


ONLINE = "sys/devices/system/cpu/online"
STATUS = "proc/self/status"


def what_is_missing(machine: Machine) -> set[str]:
    return {missing.what for missing in machine.missing} - {"gpus"}
