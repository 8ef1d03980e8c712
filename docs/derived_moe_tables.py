"""Prints the tables of docs/derived-moe.md from the committed files in data/moe/NAME (smollm2-moe)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
NAME = sys.argv[1] if len(sys.argv) > 1 else "smollm2-moe"
FOLDER = REPOSITORY / "data" / "moe" / NAME


def search_table() -> str:
    rows = [
        "| shared | experts | top-K | clustered | neurons on | energy | oracle perplexity | × dense |",
        "|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    for each in map(json.loads, (FOLDER / "search.jsonl").read_text().splitlines()):
        rows.append(
            f"| {each['shared']} | {each['experts']} of {each['expert_size']} | {each['top_k']} "
            f"| {'yes' if each['clustered'] else 'no'} | {each['share_on']:.2%} "
            f"| {each['captured_energy']:.1%} | {each['oracle_perplexity']:.1f} | {each['ratio']:.2f} |"
        )
    return "\n".join(rows)


def result_table(report: dict[str, Any]) -> str:
    rows = [
        f"| | dense | {NAME} |",
        "|---|---:|---:|",
        f"| perplexity | {report['dense_perplexity']:.2f} | {report['perplexity']:.2f} |",
        f"| as a multiple of dense | 1 | {report['ratio']:.3f} |",
        f"| ΔNLL, nats a token, paired | | {report['delta_nll']:.4f} ± {report['delta_nll_stderr']:.4f} |",
        f"| KL(dense ‖ MoE), nats a token | | {report['kl']:.4f} ± {report['kl_stderr']:.4f} |",
        f"| top-1 agreement with dense | | {report['agreement']:.1%} ± {report['agreement_stderr']:.1%} |",
    ]
    return "\n".join(rows)


def routing_table(report: dict[str, Any]) -> str:
    rows = [
        "| layer | entropy of w, nats | Σ w of the chosen | load: least, median, most | never | always |",
        "|---:|---:|---:|---|---:|---:|",
    ]
    for layer, load in enumerate(np.asarray(report["load"])):
        rows.append(
            f"| {layer} | {report['entropy_nats'][layer]:.3f} | {report['chosen_mass'][layer]:.3f} "
            f"| {load.min():.3f}, {np.median(load):.3f}, {load.max():.3f} "
            f"| {(load < 0.001).sum()} | {(load > 0.999).sum()} |"
        )
    return "\n".join(rows)


def training_table() -> str:
    rows = [
        "| step | tokens | seconds | KL, mean of 20 steps | KL on held-out windows |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines = [json.loads(line) for line in (FOLDER / "training.jsonl").read_text().splitlines()]
    for at in sorted({*range(19, len(lines), 20), len(lines) - 1}):
        line = lines[at]
        mean = np.mean([each["kl"] for each in lines[at - 19 : at + 1]])
        held = next(
            (f"{each['validation_kl']:.3f}" for each in lines[at - 19 : at + 1] if "validation_kl" in each),
            "",
        )
        rows.append(f"| {line['step']} | {line['tokens']:,} | {line['seconds']:,.0f} | {mean:.3f} | {held} |")
    return "\n".join(rows)


def main() -> None:
    report = json.loads((FOLDER / "moe.json").read_text())["report"]
    tables = [training_table(), result_table(report), routing_table(report)]
    if (FOLDER / "search.jsonl").is_file():
        tables.insert(0, search_table())
    for table in tables:
        sys.stdout.write(table + "\n\n")


if __name__ == "__main__":
    main()
