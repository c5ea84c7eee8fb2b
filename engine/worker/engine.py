"""Everything of the worker that needs torch, behind one function."""

from collections.abc import Callable

import torch

from engine.worker.loaded import Loaded
from engine.worker.metrics import Metrics
from engine.worker.model import load
from engine.worker.options import Options
from engine.worker.requests import Prompts
from engine.worker.scheduler import Deliver, Scheduler


def start(
    options: Options, metrics: Metrics, *, deliver: Deliver, clock: Callable[[], float]
) -> tuple[Loaded, Callable[[], None]]:
    """The loaded model, and the loop that the calling thread has to run."""
    torch.set_num_threads(options.threads)
    model = load(options)
    scheduler = Scheduler(
        model, max_num_seqs=options.max_num_seqs, metrics=metrics, deliver=deliver, clock=clock
    )
    tokenizer = model.tokenizer
    loaded = Loaded(
        prompts=Prompts(
            encode=lambda text: tokenizer.encode(text, special=True),
            chat=tokenizer.chat,
            vocabulary=model.vocabulary,
            max_length=model.max_length,
        ),
        decode=tokenizer.decode,
        submit=scheduler.submit,
        abort=scheduler.abort,
        max_length=model.max_length,
        dtype=str(model.dtype).removeprefix("torch."),
        torch_version=torch.__version__,
        weights_bytes=model.weights_bytes,
        token_read_bytes=model.token_read_bytes,
        kv_bytes_per_token=model.kv_bytes_per_token,
    )
    return loaded, scheduler.run
