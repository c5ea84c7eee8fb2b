"""Sizes as package indexes and disks are sold: in units of ten."""


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
