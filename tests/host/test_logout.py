"""Whether what was started in a login session ends with it."""

from pathlib import Path

import pytest

from engine.host.logout import ends_at_logout
from engine.host.root import HostRoot

SESSION = "0::/user.slice/user-1000.slice/session-3.scope\n"
OLD_SESSION = "2:cpu:/\n1:name=systemd:/user.slice/user-1000.slice/session-c2.scope\n0::/\n"
MANAGER = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope\n"
MAIN, BUILT_IN = "etc/systemd/logind.conf", "usr/lib/systemd/logind.conf"
DROP_IN, LOWER = "etc/systemd/logind.conf.d/9.conf", "usr/lib/systemd/logind.conf.d/1.conf"
YES, NO = "[Login]\nKillUserProcesses=yes\n", "[Login]\n#KillUserProcesses=no\n"


@pytest.mark.parametrize(
    ("group", "files", "user", "file"),
    [
        (SESSION, {}, "ann", ""),
        (SESSION, {MAIN: NO}, "ann", ""),
        (SESSION, {MAIN: YES}, "ann", MAIN),
        (OLD_SESSION, {MAIN: YES}, "ann", MAIN),
        (MANAGER, {MAIN: YES}, "ann", ""),
        ("0::/\n", {MAIN: YES}, "ann", ""),
        (SESSION, {MAIN: YES}, "root", ""),
        (SESSION, {MAIN: YES + "KillExcludeUsers=ann bob\n"}, "bob", ""),
        (SESSION, {MAIN: YES + "KillExcludeUsers=\n"}, "root", MAIN),
        (SESSION, {MAIN: YES + "KillOnlyUsers=bob\n"}, "ann", ""),
        (SESSION, {MAIN: YES + "KillOnlyUsers=root\n"}, "root", MAIN),
        (SESSION, {BUILT_IN: "#KillUserProcesses=yes\n"}, "ann", BUILT_IN),
        (SESSION, {BUILT_IN: YES, MAIN: NO}, "ann", ""),
        (SESSION, {MAIN: YES, DROP_IN: "KillUserProcesses=0\n"}, "ann", ""),
        (SESSION, {MAIN: NO, DROP_IN: "KillUserProcesses=on\n"}, "ann", DROP_IN),
        (SESSION, {DROP_IN: YES, LOWER: "KillUserProcesses=no\n"}, "ann", DROP_IN),
        (SESSION, {MAIN: NO, DROP_IN: "#KillUserProcesses=yes\n"}, "ann", ""),
    ],
)
def test_what_ends_at_logout(
    tmp_path: Path, group: str, files: dict[str, str], user: str, file: str
) -> None:
    for name, text in {"proc/self/cgroup": group, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert ends_at_logout(HostRoot(tmp_path), user) == (f"/{file}" if file else "")
