"""The selected instance in words: the state's reason, asked against got, why a dash is a dash."""

from engine.core.status import GpuUse, InstanceStatus
from tui.present.badges import Badge
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.text import clean, fit, wrapped
from tui.present.units import memory, number, percent, span

KEYS = {
    "tokens_per_s.prompt": "in tok/s",
    "tokens_per_s.output": "out tok/s",
    "tokens_per_s": "tok/s",
    "ttft_ms": "TTFT",
    "itl_ms": "ITL",
    "kv_cache_used": "KV cache",
    "cpu_cores_used": "CPU cores",
    "rss_bytes": "RSS",
    "pages_local": "local %",
    "verified": "verified",
    "requests": "requests",
}


def unknown_text(each: InstanceStatus) -> str:
    """`– ITL: one token so far · local %: not sampled yet`, or nothing."""
    parts = [
        f"{KEYS.get(key, clean(key))}: {clean(why)}" for key, why in sorted(each.unknown.items())
    ]
    return "– " + " · ".join(parts) if parts else ""


def binding_text(each: InstanceStatus) -> str:
    """What was asked and what it holds."""
    memory_words = f"{each.memory.policy} {each.memory.nodes}".strip()
    got = f"PUs {clean(each.pus) or 'none'} · memory {clean(memory_words) or 'local'}"
    word = {True: "verified", False: "differs from what was asked", None: "not verified yet"}
    return f"{clean(each.slot)} → {got} · {word[each.verified]}"


def gpu_text(use: GpuUse) -> str:
    """`gpu 0: 5.0 GiB · busy 60 % (compute 60 %, copy 1 %)`, and why something is not known."""
    words = [f"{memory(use.memory_bytes)}", f"busy {percent(use.busy)}"]
    at_work = {name: share for name, share in use.engines.items() if round(share * 100)}
    if at_work:
        ranked = sorted(at_work.items(), key=lambda one: -one[1])
        words[1] += f" ({', '.join(f'{name} {percent(share)}' for name, share in ranked)})"
    return f"gpu {use.index}: {' · '.join(words)}{f': {use.why}' if use.why else ''}"


def short_details(
    each: InstanceStatus | None, badge: Badge | None, width: int, glyphs: Glyphs
) -> list[Line]:
    """Two lines: the state's reason; then what is unknown and why, or asked against got."""
    if each is None or badge is None:
        return [(Span("  nothing selected", "muted"),), ()]
    first = [
        Span(f" {badge.letter} ", badge.ink),
        Span(f"{each.state.value} {span(each.since_s)} ", f"state:{each.state.value}"),
    ]
    used = sum(len(one.text) for one in first)
    why = clean(each.why) or "no reason given"
    first.append(Span(_cut(f"{glyphs.dot} {why}", width - used, glyphs), "text"))
    # What differs from the wish comes before what is merely unknown.
    tail = binding_text(each)
    if each.unknown and each.verified is not False:
        tail = unknown_text(each)
    ink = "warning" if each.verified is False else "muted"
    return [tuple(first), (Span("   " + _cut(tail, width - 3, glyphs), ink),)]


def long_details(
    each: InstanceStatus | None, badge: Badge | None, width: int, glyphs: Glyphs
) -> list[Line]:
    """All there is to say about it, a fact a line."""
    if each is None or badge is None:
        return [(Span("  nothing selected", "muted"),)]
    lines: list[Line] = [
        (
            Span(f" {badge.letter} ", badge.ink),
            Span(spelled(clean(each.name), glyphs), "name"),
            Span(
                f"  {glyphs.marks.get(each.state.value, '?')} {each.state.value}",
                f"state:{each.state.value}",
            ),
            Span(f" {span(each.since_s)}", "muted"),
        )
    ]
    verified = "warning" if each.verified is False else "text"
    facts = [
        ("why", each.why or "no reason given", "text"),
        ("model", each.model, "text"),
        ("engine", f"{each.engine} · pid {each.pid or '–'} · port {each.port or '–'}", "text"),
        ("url", each.url or "–", "text"),
        ("placed", binding_text(each), verified),
        *(
            ("GPUs" if at == 0 else "", words, "text")
            for at, words in enumerate([gpu_text(use) for use in each.gpu_use] or ["none"])
        ),
        ("TTFT", f"p50 {number(each.ttft_ms.p50)} ms · p95 {number(each.ttft_ms.p95)} ms", "text"),
        (
            "ITL",
            f"p50 {number(each.itl_ms.p50, 1)} ms · p95 {number(each.itl_ms.p95, 1)} ms",
            "text",
        ),
        (
            "memory",
            f"RSS {memory(each.rss_bytes)} · KV cache {percent(each.kv_cache_used)}",
            "text",
        ),
        ("started", f"{each.started_at or '–'} · restarts {each.restarts}", "text"),
    ]
    facts += [
        (KEYS.get(key, key), f"– because {why}", "muted")
        for key, why in sorted(each.unknown.items())
    ]
    for label, words, ink in facts:
        for at, line in enumerate(wrapped(words, width - 13)[:3]):
            head = fit(spelled(f"   {clean(label)}" if at == 0 else "", glyphs), 13)
            lines.append((Span(head, "muted"), Span(spelled(line, glyphs), ink)))
    return lines


def _cut(text: str, width: int, glyphs: Glyphs) -> str:
    return spelled(fit(text, max(0, width), more=glyphs.more), glyphs)
