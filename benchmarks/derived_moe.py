"""The derived mixture's experts in one product against transformers' loop: one window, and token by token.

python -m benchmarks.derived_moe
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from backend.home import Home
from backend.models import DERIVED_MOE
from backend.models.derived_moe.masked_experts import transformers_experts
from backend.models.loading import load_model

WINDOW, TOKENS = 1_024, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = load_model(DERIVED_MOE, Home.resolve(asked.home)).model
    ids = torch.randint(0, 40_000, (1, WINDOW), generator=torch.Generator().manual_seed(0))

    def window() -> None:
        model(input_ids=ids, use_cache=False, logits_to_keep=1)

    def decode() -> None:
        cache = None
        for token in ids[0, :TOKENS]:
            cache = model(input_ids=token.view(1, 1), past_key_values=cache, use_cache=True).past_key_values

    for name, work in ((f"window of {WINDOW}", window), (f"{TOKENS} tokens one by one", decode)):
        masked, loop = _in_turns(model, work)
        print(f"{name}: masked {masked:.2f} s, transformers {loop:.2f} s, {loop / masked:.2f}×")


def _in_turns(model: object, work: Callable[[], None], rounds: int = 3) -> tuple[float, float]:
    masked, loop = [], []
    with torch.inference_mode():
        for _ in range(rounds):
            masked.append(_seconds(work))
            with transformers_experts(model):
                loop.append(_seconds(work))
    return median(masked), median(loop)


def _seconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
