from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from engine.worker import process_stats
from engine.worker.metrics import Metrics

LABELS = {"engine": "0", "model_name": 'a "quoted" \\ name\n'}


def test_the_text_parses_and_the_labels_survive() -> None:
    metrics = Metrics()
    metrics.prompt_tokens = 7
    metrics.time_to_first_token.observe(0.03)
    metrics.time_to_first_token.observe(99999)
    text = "\n".join([*metrics.lines(LABELS), *process_stats.lines()]) + "\n"
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (prompt,) = families["vllm:prompt_tokens"].samples
    assert (prompt.value, prompt.labels) == (7, LABELS)
    first = families["vllm:time_to_first_token_seconds"]
    buckets = {one.labels["le"]: one.value for one in first.samples if "le" in one.labels}
    assert (buckets["0.02"], buckets["0.04"], buckets["2560.0"], buckets["+Inf"]) == (0, 1, 1, 2)
    assert families["process_cpu_seconds"].samples[0].value > 0
    assert families["process_start_time_seconds"].samples[0].value > 1e9


def test_a_value_on_a_bound_belongs_below_it() -> None:
    metrics = Metrics()
    metrics.e2e_latency.observe(0.3)
    assert any(
        'le="0.3"' in line and line.endswith(" 1.0") for line in metrics.e2e_latency.lines(LABELS)
    )


def test_every_finished_reason_is_there_from_the_start() -> None:
    text = "\n".join(Metrics().lines({"engine": "0"}))
    for reason in ("stop", "length", "abort", "error", "repetition"):
        line = f'vllm:request_success_total{{engine="0",finished_reason="{reason}"}} 0.0'
        assert line in text


def test_a_worker_has_no_module_of_slotdeck_but_its_own() -> None:
    folder = Path(process_stats.__file__).parent
    for file in folder.glob("*.py"):
        for line in file.read_text().splitlines():
            if line.startswith(("from engine", "import engine")):
                assert line.startswith("from engine.worker"), f"{file.name}: {line}"
