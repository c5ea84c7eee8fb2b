"""systemd units: a service for every instance, and a target that wants them all."""

from collections.abc import Mapping
from re import Match, fullmatch, sub

from engine.core.command import numactl_words
from engine.core.exports.common import (
    RESTARTS,
    Export,
    Exported,
    Word,
    commented,
    flag_groups,
    seconds,
)
from engine.core.status import MemoryBinding

TARGET = "slotdeck.target"
_RESTART = {"never": "no", "on-failure": "on-failure", "always": "always"}
_RESTART_S = 5
_WEIGHTED = "weighted-interleave"
_FORGIVEN_AFTER_S = 600


def systemd_units(export: Export, *, account: str = "") -> Mapping[str, str]:
    """File names and their text. `account` runs the engines; empty leaves it to the reader."""
    services = {unit_name(one.name): _service(export, one, account) for one in export.instances}
    return {TARGET: _target(export, list(services)), **services}


def unit_name(instance: str) -> str:
    """The service's file name, escaped as systemd-escape does where that must be."""
    return f"slotdeck-{sub(r'[^A-Za-z0-9:_.-]', _escaped_bytes, instance)}.service"


def quoted(text: str) -> str:
    """One word in double quotes: nothing in it ends the word or the line, no %h is expanded."""
    return '"' + "".join(map(_escaped, text)).replace("%", "%%") + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode())


def _escaped_bytes(found: Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in found[0].encode())


def _target(export: Export, services: list[str]) -> str:
    about = [
        *export.header(),
        "",
        "Copy these files to /etc/systemd/system, then:",
        f"  systemctl daemon-reload && systemctl enable --now {TARGET}",
        f"`systemctl stop {TARGET}` stops all instances; `journalctl -u {services[0]}` is a log.",
    ]
    lines = [
        *commented(about),
        "[Unit]",
        "Description=Inference engines placed by slotdeck",
        *(f"Wants={service}" for service in services),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _service(export: Export, one: Exported, account: str) -> str:
    memory = one.placement.memory
    lines = [
        *commented([*export.header(), "", *one.described()]),
        "[Unit]",
        f"Description={one.name}: {one.wish.engine} engine, placed by slotdeck".replace("%", "%%"),
        f"PartOf={TARGET}",
        "After=network.target",
        *commented([f"At most {RESTARTS} restarts in {_FORGIVEN_AFTER_S // 60} minutes."]),
        f"StartLimitIntervalSec={_FORGIVEN_AFTER_S}",
        f"StartLimitBurst={RESTARTS + 1}",
        "",
        "[Service]",
        "Type=exec",
    ]
    if fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", account):
        lines.append(f"User={account}")
    else:
        lines += commented(
            ["Without a user it runs as root: name an account of your own.", "User="]
        )
    lines += _environment(one)
    lines += ["ExecStart=" + " \\\n  ".join(_command(one)), ""]
    lines += [
        f"CPUAffinity={one.placement.pus}",
        *_policy(memory),
        *one.placement.limits.properties(),
        f"OOMScoreAdjust={one.oom_score}",
        f"LimitCORE={'infinity' if one.wish.core_dumps else 0}",
        "LimitMEMLOCK=infinity",
        *_devices(one),
        "NoNewPrivileges=yes",
        "",
        *commented(["To every process of it: SIGTERM, and after the grace SIGKILL."]),
        "KillMode=control-group",
        # 0 would mean "wait for ever".
        f"TimeoutStopSec={seconds(one.stop_grace_ms)}",
        f"Restart={_RESTART[one.wish.restart]}",
        f"RestartSec={_RESTART_S}",
    ]
    return "\n".join(lines) + "\n"


def _policy(memory: MemoryBinding) -> list[str]:
    if memory.policy == _WEIGHTED:
        return commented(["systemd has no word for weighted interleave: numactl sets it."])
    return [
        f"NUMAPolicy={memory.policy}",
        *([f"NUMAMask={memory.nodes}"] if memory.nodes else []),
    ]


def _environment(one: Exported) -> list[str]:
    lines: list[str] = []
    own = [name for name, word in one.confined_env.items() if word.secret]
    own += [word.secret for word in one.argv if word.secret and word.secret not in own]
    if own:
        file = f"/etc/slotdeck/{unit_name(one.name).removesuffix('.service')}.env"
        lines += commented(
            [
                "Secrets are not written here: make this file, readable by root only, with a line",
                *(f"  {name}=…" for name in own),
            ]
        )
        lines.append(f"EnvironmentFile={file}".replace("%", "%%"))
    lines += [
        f"Environment={quoted(f'{name}={word.text}')}"
        for name, word in one.confined_env.items()
        if not word.secret
    ]
    return lines


def _command(one: Exported) -> list[str]:
    argv, memory = one.argv, one.placement.memory
    if memory.policy == _WEIGHTED:
        argv = (*map(Word, ("/usr/bin/numactl", *numactl_words(memory), "--")), *argv)
    program = argv[0].text
    # systemd takes neither quotes, `$` nor control characters in a program's name, and looks
    # bare names up in a path of its own.
    direct = fullmatch(r"[/A-Za-z0-9][^\x00-\x1f\x7f\"'\\$]*", program) and (
        "/" in program or "PATH" not in one.env
    )
    if direct:
        words = [quoted(program), *(_argument(word) for word in argv[1:])]
        return flag_groups(words, argv)
    through = [Word("/bin/sh"), Word("-c"), Word('exec "$@"'), Word("sh")]
    words = [_argument(word) for word in (*through, *argv)]
    return [" ".join(words[:4]), *flag_groups(words[4:], argv)]


def _argument(word: Word) -> str:
    text = quoted(word.text.replace("$", "$$"))
    return f'{text[:-1]}${{{word.secret}}}"' if word.secret else text


def _devices(one: Exported) -> list[str]:
    if one.devices is None:
        return commented(["This machine does not tell the GPUs' render nodes: all stay open."])
    if not one.devices:
        return []
    return ["DevicePolicy=closed", *(f"DeviceAllow={device} rw" for device in one.devices)]
