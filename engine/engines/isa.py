"""Which of a processor's instructions an engine computes with, in words."""

from collections.abc import Mapping
from typing import Any

_NAMES = {"DEFAULT": "SSE", "NO AVX": "SSE", "AVX2": "AVX2", "AVX512": "AVX-512"}


def isa_words(device: Mapping[str, Any]) -> str | None:
    """From what `probe.py` found; None where the libraries do not say."""
    capability = device.get("capability")
    if capability is None:
        return None
    words = [_NAMES.get(str(capability), str(capability))]
    if device.get("amx"):
        words.append("AMX")
    text = " and ".join(words)
    if device.get("bfloat16"):
        text += ", bfloat16 in hardware"
    elif "bfloat16" in device:
        text += ", no bfloat16 in hardware"
    if "ipex_isa" in device:
        text += f"; the extension itself with {device['ipex_isa']}"
    return text
