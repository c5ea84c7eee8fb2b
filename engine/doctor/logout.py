"""Whether systemd-logind ends engines with the login session that started them.

logind.conf(5), KillUserProcesses=.
"""

from engine.core.checks import Check
from engine.doctor.host import Host, unknown
from engine.host.logout import ends_at_logout

ID = "logout"


def check(host: Host) -> Check:
    """For the user who asks, in the session that he asks in."""
    if host.answers is None or host.text("proc/self/cgroup") is None:
        why = "who logs in, and where, can only be asked on the running machine"
        return unknown(ID, "what a logout ends is not told", why)
    file = ends_at_logout(host.root, host.answers.user)
    evidence = host.seen("proc/self/cgroup")
    if not file:
        return Check(ID, "ok", "engines outlive the logout of whoever starts them", evidence)
    return Check(
        ID,
        "problem",
        "engines that are started from this session end at its logout",
        (*host.seen(file.lstrip("/")), *evidence),
        f"KillUserProcesses=yes in {file}: systemd-logind ends all that the session has started",
        "`loginctl enable-linger`, `slotdeck service stop`, then `systemd-run --user --scope "
        "slotdeck`",
        "`loginctl disable-linger`",
        ("login",),
    )
