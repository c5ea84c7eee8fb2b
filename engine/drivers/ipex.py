"""The `ipex` engine: the same worker with Intel Extension for PyTorch."""

from engine.drivers.torch import TorchDriver


class IpexDriver(TorchDriver):
    """IPEX 2.8 needs torch 2.8, so it has a Python of its own, named by `python` in the layout."""

    name = "ipex"
    weight_only: tuple[str, ...] = ("none", "int8", "int4")
