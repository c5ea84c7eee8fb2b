"""The `ipex` engine: the same worker with Intel Extension for PyTorch."""

from engine.drivers.torch import TorchDriver


class IpexDriver(TorchDriver):
    """IPEX 2.8 needs torch 2.8, so it has a Python of its own, named by `python` in the layout."""

    name = "ipex"
    # IPEX 2.8 on torch 2.8, SmolLM2: 1,086 MB resident in bfloat16, 1,024 with INT8.
    framework_bytes: int | None = 820_000_000
    weight_only: tuple[str, ...] = ("none", "int8", "int4")
