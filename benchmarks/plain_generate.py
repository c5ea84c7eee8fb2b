"""Runs a model by transformers alone, on one thread; takes its orders from standard input.

    plain_generate.py MODEL DTYPE

`generate ROWS INPUT OUTPUT SEED` answers with the seconds of the first token and of all;
`bandwidth` with the bytes/s that this core reads from memory.
"""

import sys
import time

import torch
import transformers


def spent(model: "transformers.PreTrainedModel", tokens: torch.Tensor, count: int) -> float:
    begun = time.perf_counter()
    with torch.inference_mode():
        model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
            pad_token_id=0,
        )
    return time.perf_counter() - begun


def bandwidth() -> float:
    """By CPU time, the best of several, so that neighbours cost little."""
    values = torch.ones(128 << 20, dtype=torch.float32)
    best = float("inf")
    for _ in range(5):
        begun = time.process_time()
        values.sum()
        best = min(best, time.process_time() - begun)
    return float(values.nbytes / best)


def main() -> None:
    folder, dtype = sys.argv[1:]
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.eval()
    spent(model, torch.ones(1, 4, dtype=torch.long), 2)
    print("ready", flush=True)
    for line in sys.stdin:
        order, *numbers = line.split()
        if order == "bandwidth":
            print(bandwidth(), flush=True)
            continue
        rows, width, count, seed = map(int, numbers)
        chance = torch.Generator().manual_seed(seed)
        tokens = torch.randint(1000, 20000, (rows, width), generator=chance)
        print(spent(model, tokens, 1), spent(model, tokens, count), flush=True)


if __name__ == "__main__":
    main()
