"""The processor's name and instruction sets, from the first part of /proc/cpuinfo alone."""

from pathlib import Path

from engine.host.device_root import DeviceRoot
from engine.host.processor import Processor, read_processor
from tests.sysfs_tree import SysfsTree

FIRST = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu avx2 avx512f amx_tile amx_int8

"""


def test_the_first_pu_tells(tmp_path: Path) -> None:
    SysfsTree(tmp_path).file("proc/cpuinfo", FIRST + FIRST.replace("8480+", "other"))
    found = read_processor(DeviceRoot(tmp_path))
    assert found.model == "Intel(R) Xeon(R) Platinum 8480+"
    assert found.flags == frozenset({"fpu", "avx2", "avx512f", "amx_tile", "amx_int8"})


def test_what_the_kernel_does_not_tell_is_unknown(tmp_path: Path) -> None:
    assert read_processor(DeviceRoot(tmp_path)) == Processor()
    SysfsTree(tmp_path).file("proc/cpuinfo", "processor : 0\nBogoMIPS : 50.00\n")
    assert read_processor(DeviceRoot(tmp_path)) == Processor(None, None)
