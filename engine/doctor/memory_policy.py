"""Whether engines may be bound to the memory of a NUMA node.

set_mempolicy(2); Docker's seccomp profile refuses it, and get_mempolicy(2) with it, to containers
without CAP_SYS_NICE. vLLM and IPEX then go on unbound, with a line in the log.
"""

import os

from engine.core.checks import Check, Evidence
from engine.doctor.host import Host, unknown

ID = "memory-policy"


def check(host: Host) -> Check:
    """Asks for the policy in force, which is allowed and refused together with setting it."""
    if host.answers is None:
        why = "only the running machine can be asked"
        return unknown(ID, "whether memory may be bound to nodes is not told", why)
    refused = host.answers.memory_policy
    words = os.strerror(refused) if refused else "allowed"
    evidence = (Evidence("get_mempolicy(2)", words),)
    if not refused:
        return Check(ID, "ok", "engines may be bound to the memory of their nodes", evidence)
    return Check(
        ID,
        "problem",
        f"the kernel refuses memory policies: {words}",
        evidence,
        "weights and cache land on whichever NUMA node is convenient, and slotdeck refuses to "
        "start engines that ask for theirs",
        "start the container with --cap-add SYS_NICE (or --security-opt seccomp=unconfined)",
        "start it without",
        ("a restart of the container",),
    )
