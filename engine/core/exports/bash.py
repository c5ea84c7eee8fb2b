"""A shell script that starts every instance pinned, keeps it, and stops all of them."""

from shlex import quote

from engine.core.command import numactl_words
from engine.core.exports.common import (
    RESTARTS,
    Export,
    Exported,
    Word,
    commented,
    flag_groups,
)

_HEAD = """
set -euo pipefail

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "this script needs bash 4.4 or newer" >&2
  exit 1
fi
"""

_START = """
logs=${SLOTDECK_LOGS:-slotdeck-logs}
mkdir -p -- "$logs"

numactl=true
if ! command -v numactl >/dev/null; then
  numactl=false
  echo "numactl is missing: taskset pins the PUs, but memory is not bound to NUMA nodes" >&2
fi
"""

_LIMITS = """
# Memory and CPU time are limited by control groups, which systemd makes.
scope=(systemd-run --scope --quiet)
((EUID == 0)) || scope=(systemd-run --user --scope --quiet)
limits=true
if ! "${scope[@]}" true 2>/dev/null; then
  limits=false
  echo "systemd-run makes no control groups here: memory and CPU time are not limited" >&2
fi
"""

_LOOP = """
pids=()
since=()
failures=()

start() { # instance, seconds to wait before
  set -m # a process group of its own: stopping reaches its children too
  (
    sleep "$2"
    echo "${oom[$1]}" 2>/dev/null >/proc/self/oom_score_adj || true
    ulimit -S -c "${core[$1]}"
    "run_$1"
  ) </dev/null >>"$logs/${names[$1]}.log" 2>&1 &
  set +m
  pids[$1]=$!
  since[$1]=$SECONDS
  echo "${names[$1]}: pid $!, log $logs/${names[$1]}.log"
}

ended() { # instance
  local code=0 pid=${pids[$1]} name=${names[$1]}
  wait "$pid" || code=$?
  unset "pids[$1]"
  kill -KILL -- "-$pid" 2>/dev/null || true # what it left behind
  echo "$name: ended with exit code $code" >&2
  ((code == 0)) || tail -n 5 -- "$logs/$name.log" >&2
  if [[ ${restart[$1]} == always || (${restart[$1]} == on-failure && $code != 0) ]]; then
    # A minute of running makes up for the failures before.
    ((SECONDS - since[$1] <= 60)) || failures[$1]=0
    failures[$1]=$((${failures[$1]:-0} + 1))
    if ((failures[$1] <= RESTARTS)); then
      start "$1" "$((1 << (failures[$1] - 1)))"
      return
    fi
    echo "$name: gave up after RESTARTS restarts in a row" >&2
    exit 1
  fi
  ((code == 0)) || exit 1
}

stop() {
  local code=$? hurry=false alive=true tick i pid
  trap 'hurry=true' INT TERM HUP # asked twice: at once
  trap - EXIT
  set +e
  for pid in "${pids[@]}"; do
    kill -TERM -- "-$pid" 2>/dev/null
  done
  for ((tick = 0; tick <= longest + 100; tick++)); do
    alive=false
    for i in "${!pids[@]}"; do
      kill -0 -- "-${pids[i]}" 2>/dev/null || continue
      alive=true
      if $hurry || ((tick >= grace[i])); then
        kill -KILL -- "-${pids[i]}" 2>/dev/null
      fi
    done
    $alive || break
    sleep 0.1
  done
  exit "$code"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

for i in "${!names[@]}"; do
  start "$i" 0
done
# One that fails, and is not or no more restarted, stops the others.
while ((${#pids[@]} > 0)); do
  sleep 1 &
  wait "$!" || true
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null || ended "$i"
  done
done
""".replace("RESTARTS", str(RESTARTS))


def bash_script(export: Export) -> str:
    """The whole script."""
    about = [
        *export.header(),
        "",
        "It starts all instances and stays until they have ended; Ctrl-C stops them.",
        "SLOTDECK_LOGS names the folder of their logs, else slotdeck-logs here.",
    ]
    parts = ["#!/usr/bin/env bash\n", *(f"{line}\n" for line in commented(about)), _HEAD]
    needs: dict[str, list[str]] = {}
    for one in export.instances:
        for secret in one.secrets:
            needs.setdefault(secret, []).append(one.name)
    if needs:
        parts.append("\n# Secrets stay in your environment: they are not written here.\n")
    parts += [
        f': "${{{secret}:?set it: {", ".join(names)} will not start without}}"\n'
        for secret, names in needs.items()
    ]
    parts.append(_START)
    limited = [one for one in export.instances if one.placement.limits]
    if limited:
        parts.append(_LIMITS)
    if strict := [one.name for one in limited if not one.wish.allow_degraded]:
        said = f"not started: {', '.join(strict)} must be limited"
        parts.append(f"$limits || {{ echo {quote(said)} >&2; exit 1; }}\n")
    parts += [_function(index, one) for index, one in enumerate(export.instances)]
    tenths = [-(-one.stop_grace_ms // 100) for one in export.instances]
    parts.append(
        f"\nnames=({' '.join(quote(one.name) for one in export.instances)})\n"
        f"restart=({' '.join(quote(one.wish.restart) for one in export.instances)})\n"
        f"# Tenths of a second between the request to stop and the kill.\n"
        f"grace=({' '.join(map(str, tenths))})\n"
        f"oom=({' '.join(str(one.oom_score) for one in export.instances)})\n"
        f"core=({' '.join('hard' if one.wish.core_dumps else '0' for one in export.instances)})\n"
        f"longest={max(tenths, default=0)}\n"
    )
    return "".join(parts) + _LOOP


def _function(index: int, one: Exported) -> str:
    at = one.placement
    lines = ["", *commented(one.described()), f"run_{index}() {{"]
    for variable, word in one.env.items():
        if word.secret:
            value = "" if word.secret == variable else f'="${word.secret}"'
            lines.append(f"  export {variable}{value}")
    memory = " ".join(numactl_words(at.memory))
    # Where the layout allows it, a kernel that refuses the memory policy refuses no start.
    can = f"{{ $numactl && numactl {memory} true; }}" if one.wish.allow_degraded else "$numactl"
    lines += [
        f"  local pin=(numactl -C {at.pus} {memory})",
        f"  {can} || pin=(taskset -c {at.pus})",
    ]
    if at.limits:
        own = " ".join(f"-p {each}" for each in at.limits.properties())
        lines.append(f'  ! $limits || pin=("${{scope[@]}}" {own} -- "${{pin[@]}}")')
    plain = [f"{name}={quote(word.text)}" for name, word in one.env.items() if not word.secret]
    words = [_written(word) for word in one.argv]
    # env(1) would take a program of such a name for a variable.
    odd = "=" in one.argv[0].text
    through = ["sh -c 'exec \"$@\"' sh"] if odd else []
    pieces = ['"${pin[@]}"', "env --", *plain, *through, *flag_groups(words, one.argv)]
    lines.append("  exec " + " \\\n    ".join(pieces))
    lines.append("}\n")
    return "\n".join(lines)


def _written(word: Word) -> str:
    if not word.secret:
        return quote(word.text)
    return (quote(word.text) if word.text else "") + f'"${{{word.secret}}}"'
