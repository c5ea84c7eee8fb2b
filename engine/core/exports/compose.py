"""A compose file: one service for every instance, with the same cores, memory and GPUs."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from re import sub

from engine.core.command import numactl_words
from engine.core.exports.common import (
    RESTARTS,
    Export,
    Exported,
    Word,
    commented,
    seconds,
)

Yaml = str | int | bool | Sequence["Yaml"] | Mapping[str, "Yaml"]

_RESTART = {"never": "no", "on-failure": f"on-failure:{RESTARTS}", "always": "unless-stopped"}
"""A container that somebody stopped stays stopped, as an instance does."""
_NOTES = (
    "Every SLOTDECK_IMAGE_… names an image that holds the engine, its Python as python3, and",
    "numactl. Paths below are those of the machine that was planned for; what lies outside of",
    "the mounted folders must be in the image.",
    "",
    "`cpuset` binds the cores. Compose has no key for memory nodes, so numactl sets the memory",
    "policy inside: Docker's seccomp profile allows set_mempolicy(2) to containers with SYS_NICE.",
    "Where the policy is refused all the same, add security_opt: [seccomp=unconfined].",
)


def compose_file(export: Export) -> str:
    """The whole file."""
    services: dict[str, Yaml] = {}
    about = [*export.header(), "", *_NOTES]
    if any(one.wish.engine == "command" for one in export.instances):
        about += [
            "",
            "An engine inside a container must listen on 0.0.0.0 (the port is published on the",
            "host's loopback only): see that the command says so.",
        ]
    lines = [*commented(about), "services:"]
    for one in export.instances:
        services = {one.name: _service(one)}
        lines += ["", *commented(one.described(), "  "), *_lines(services, "  ")]
    return "\n".join(lines) + "\n"


def text_of(text: str) -> str:
    """A YAML string in double quotes, in which compose replaces nothing."""
    return _quoted(text.replace("$", "$$"))


def _quoted(text: str) -> str:
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class _Raw(str):
    """Already written for compose: its `${…}` is meant."""

    __slots__ = ()


def _service(one: Exported) -> Mapping[str, Yaml]:
    memory, at = one.placement.memory, one.placement
    image = f"SLOTDECK_IMAGE_{sub('[^A-Za-z0-9]', '_', one.wish.engine).upper()}"
    bound = memory.policy != "local"
    service: dict[str, Yaml] = {
        "image": _Raw(f"${{{image}:?name an image with the {one.wish.engine} engine}}"),
        # The image's own entry point would come before the words below.
        "entrypoint": ["numactl", *numactl_words(memory)] if bound else ["env", "--"],
        "command": [_word(word) for word in one.argv],
        "environment": [_Raw(f"{name}={_word(word)}") for name, word in one.confined_env.items()],
        "cpuset": str(at.pus),
        "ports": [f"{_published(one.wish.host)}:{at.port}:{at.port}"],
    }
    if bound:
        service["cap_add"] = ["SYS_NICE"]
    if one.folders:
        service["volumes"] = [
            {"type": "bind", "source": folder, "target": folder, "read_only": True}
            for folder in one.folders
        ]
    if at.gpus:
        # Where the machine does not tell which render nodes are its own: all GPUs.
        service["devices"] = list(one.devices or ("/dev/dri",))
        first = (one.devices or ("/dev/dri/renderD128",))[0]
        service["group_add"] = [
            _Raw(f"${{RENDER_GID:?the group that may use the GPUs: stat -c %g {first}}}")
        ]
    limits = at.limits
    if limits.memory_bytes is not None:
        # The same for both: nothing of it is swapped.
        service |= {"mem_limit": limits.memory_bytes, "memswap_limit": limits.memory_bytes}
    if limits.cpu_cores is not None:
        service["cpus"] = f"{limits.cpu_cores:.8g}"
    service |= {
        # Ranks of one engine exchange tensors here.
        "shm_size": f"{max(1, at.tensor_parallel)}gb",
        "ulimits": {"memlock": -1, "core": -1 if one.wish.core_dumps else 0},
        "oom_score_adj": one.oom_score,
        # The first process of a container ignores SIGTERM unless it handles it.
        "init": True,
        "stop_grace_period": seconds(one.stop_grace_ms),
        "restart": _RESTART[one.wish.restart],
    }
    return service


def _word(word: Word) -> "_Raw":
    text = word.text.replace("$", "$$")
    return _Raw(f"{text}${{{word.secret}:?set it}}" if word.secret else text)


def _published(host: str) -> str:
    """Where the port is reached on the host; docker takes addresses only."""
    try:
        address = ip_address(host)
    except ValueError:
        return "127.0.0.1"
    return f"[{address}]" if address.version == 6 else str(address)


def _lines(value: Mapping[str, Yaml], indent: str) -> list[str]:
    """A tiny writer: every text quoted, lists of texts one a line."""
    lines: list[str] = []
    for key, inner in value.items():
        head = f"{indent}{_quoted(key) if indent == '  ' else key}:"
        if isinstance(inner, Mapping):
            lines += [head, *_lines(inner, f"{indent}  ")]
        elif isinstance(inner, Sequence) and not isinstance(inner, str):
            lines.append(head if inner else f"{head} []")
            for item in inner:
                if isinstance(item, Mapping):
                    first, *rest = _lines(item, f"{indent}    ")
                    lines += [f"{indent}  - {first.lstrip()}", *rest]
                else:
                    lines.append(f"{indent}  - {_scalar(item)}")
        else:
            lines.append(f"{head} {_scalar(inner)}")
    return lines


def _scalar(value: Yaml) -> str:
    if isinstance(value, _Raw):
        return _quoted(value)
    if isinstance(value, str):
        return text_of(value)
    return str(value).lower()
