"""haproxy before the replicas: a frontend for every served model, the least busy replica next."""

from collections.abc import Sequence
from re import fullmatch, sub

from engine.core.exports.common import Export, Exported, commented, one_line, reachable

FIRST_PORT = 8000
_LARGEST_PORT = 65535
_HEAD = """
global
  log stdout format raw daemon info
  maxconn 8192

defaults
  mode http
  log global
  option httplog
  # Tokens are passed on as they come.
  option http-no-delay
  option redispatch
  retries 2
  timeout connect 5s
  timeout http-request 30s
  timeout queue 2m
  # Counted from the last byte: a long prompt may keep the first token waiting.
  timeout client 15m
  timeout server 15m
"""


class CannotBeProxied(Exception):
    """An address or port that haproxy cannot be given; the message is the reason."""


def haproxy_config(export: Export, *, first_port: int = FIRST_PORT) -> str:
    """The whole file. Raises CannotBeProxied."""
    models = _by_model(export.instances)
    ports = _ports(export.instances, first_port, len(models))
    names = _names(models)
    about = [*export.header(), "", "Check with `haproxy -c -f FILE`, run with `haproxy -f FILE`."]
    if len(models) > 1:
        about += [
            "",
            "The model's name stands in a request's body, where haproxy does not choose by it:",
            "each model has a port of its own.",
        ]
    about += [
        one_line(f"  http://127.0.0.1:{port} {_title(group)}, {_replicas(group)}")
        for port, group in zip(ports, models, strict=True)
    ]
    parts = ["\n".join(commented(about)) + "\n", _HEAD]
    for name, port, group in zip(names, ports, models, strict=True):
        parts.append(_section(name, port, group))
    return "".join(parts)


def _section(name: str, port: int, group: Sequence[Exported]) -> str:
    paths = {one.health_path for one in group}
    # One check for all: what every OpenAI-compatible server answers, if only by asking for a key.
    path, wanted = (paths.pop(), "status 200") if len(paths) == 1 else ("/v1/models", "")
    lines = [
        "",
        *commented([one_line(f"Model: {_title(group)}")]),
        f"frontend {name}",
        f"  bind 127.0.0.1:{port}",
        "  maxconn 4096",
        f"  default_backend {name}-replicas",
        "",
        f"backend {name}-replicas",
        "  balance leastconn",
        f"  option httpchk GET {path}",
        f"  http-check expect {wanted or 'rstatus ^(200|401)$'}",
        "  default-server check inter 2s fall 3 rise 1 maxconn 1024",
        *(f"  server {one.name} {_address(one)}" for one in group),
    ]
    return "\n".join(lines) + "\n"


def _address(one: Exported) -> str:
    host = reachable(one.wish.host)
    if not fullmatch(r"[A-Za-z0-9._:-]+", host):
        raise CannotBeProxied(f"the host {host!r} of {one.name} is no address")
    return f"{f'[{host}]' if ':' in host else host}:{one.placement.port}"


def _by_model(instances: Sequence[Exported]) -> list[list[Exported]]:
    """Replicas together, in the layout's order; where no model is named, the command tells."""
    groups: dict[tuple[object, ...], list[Exported]] = {}
    for one in instances:
        wish = one.wish
        unnamed = (wish.engine, wish.command, tuple(wish.args.items()))
        key = (one.served_name,) if one.served_name else ("", *unnamed)
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _title(group: Sequence[Exported]) -> str:
    return group[0].served_name or f"{group[0].name} (no model named)"


def _replicas(group: Sequence[Exported]) -> str:
    return "1 replica" if len(group) == 1 else f"{len(group)} replicas"


def _names(models: Sequence[Sequence[Exported]]) -> list[str]:
    names: list[str] = []
    for group in models:
        name = sub(r"[^A-Za-z0-9_.-]+", "-", group[0].served_name or group[0].name).strip("-")[:60]
        name = name or "model"
        again, count = name, 1
        while again in names:
            count += 1
            again = f"{name}-{count}"
        names.append(again)
    return names


def _ports(instances: Sequence[Exported], first: int, count: int) -> list[int]:
    taken = {one.placement.port for one in instances}
    free = [port for port in range(first, _LARGEST_PORT + 1) if port not in taken][:count]
    if len(free) < count:
        raise CannotBeProxied(f"there are not {count} free ports from {first} on")
    return free
