"""Prefix trees against naive padding: raw tokens per second of forward and backward, the same turns, the same run.

A raw token is a token of a turn counted as if each turn were run alone: both layouts are credited with the same work.
The peer gets length-sorted padded micro-batches and scores action tokens only, as a good padded learner does.
The model has SmolLM2-135M's widths; depth and vocabulary are scaled down together, so that the vocabulary head keeps
its share of the work.

    python benchmarks/packing.py              table; also written to benchmarks/results/packing.md
    python benchmarks/packing.py --json       one final JSON line: ours, peer (raw tokens/s), ratio
    python benchmarks/packing.py --calibrate  constants of the cost model behind layout "auto" on this machine
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rollwright.batching import TREE_ATTENTION, Layout, PackedBatch, Segment, pack
from rollwright.models import TokenScorer, body_hidden, body_of

RESULTS = Path(__file__).parent / "results" / "packing.md"
LAYOUTS: tuple[Layout, ...] = ("tree", "auto", "padded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of batch: a group of trajectories that start from the same prompt."""

    name: str
    prompt: int
    turns: int
    observation: int
    action: int
    group: int = 8


CASES = (
    Case(name="groups of 8, one turn", prompt=300, turns=1, observation=0, action=72),
    Case(name="groups of 8, 8-turn histories", prompt=60, turns=8, observation=20, action=10),
)


def vocabulary(layers: int) -> int:
    return 49152 * layers // 30


def smollm2_sized(layers: int, seed: int) -> LlamaForCausalLM:
    """SmolLM2-135M (30 layers, 49,152 tokens) scaled to fewer layers; random weights: speed does not depend on them."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary(layers),
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    config._attn_implementation = TREE_ATTENTION
    return LlamaForCausalLM(config)


def turns_of(case: Case, seed: int, vocab: int) -> list[Segment]:
    """The turns of one group; lengths vary by a third, tokens are random."""
    rng = random.Random(seed)

    def ids(mean: int) -> tuple[int, ...]:
        return tuple(rng.randrange(vocab) for _ in range(rng.randint(mean - mean // 3, mean + mean // 3)))

    start, segments = ids(case.prompt), []
    for member in range(case.group):
        history = start
        for _ in range(case.turns):
            action = ids(case.action)
            segments.append(Segment(prompt_ids=history, action_ids=action, sequence=member))
            history = (*history, *action, *ids(case.observation))
    return segments


def raw_tokens(segments: list[Segment]) -> int:
    return sum(len(segment.forward_ids) for segment in segments)


def seconds(scorer: TokenScorer, segments: list[Segment], layout: Layout, arguments: argparse.Namespace) -> float:
    """Packing, forward and backward of all micro-batches."""
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    began = clock()
    for batch in pack(segments, token_budget=arguments.budget, layout=layout):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=arguments.bf16):
            logprobs, _, _ = scorer(batch)
        logprobs.sum().backward()
    took = clock() - began
    scorer.zero_grad()
    return took


def measure(arguments: argparse.Namespace) -> list[dict[str, float | str]]:
    """One row per case: medians over paired repeats; the layouts take turns within every repeat."""
    scorer = TokenScorer(smollm2_sized(arguments.layers, arguments.seed))
    rows: list[dict[str, float | str]] = []
    for case in CASES:
        times: dict[Layout, list[float]] = {layout: [] for layout in LAYOUTS}
        tokens = []
        for repeat in range(-1, arguments.repeats):  # repeat -1 warms up
            segments = turns_of(case, arguments.seed + max(repeat, 0), vocabulary(arguments.layers))
            for layout in LAYOUTS if repeat % 2 else LAYOUTS[::-1]:
                if repeat < 0 and layout == "padded":
                    continue
                took = seconds(scorer, segments, layout, arguments)
                if repeat >= 0:
                    times[layout].append(took)
            tokens += [raw_tokens(segments)] * (repeat >= 0)
        rows.append(_row(case, times, tokens))
    return rows


def _row(case: Case, times: dict[Layout, list[float]], tokens: list[int]) -> dict[str, float | str]:
    ratios = [peer / ours for ours, peer in zip(times["tree"], times["padded"], strict=True)]
    speeds = {
        layout: statistics.median(n / t for n, t in zip(tokens, times[layout], strict=True)) for layout in LAYOUTS
    }
    return {
        "case": case.name,
        "raw_tokens": statistics.mean(tokens),
        **{f"{layout}_tokens_per_s": round(speed, 1) for layout, speed in speeds.items()},
        "ratio": round(statistics.median(ratios), 2),
        "ratio_low": round(min(ratios), 2),
        "ratio_high": round(max(ratios), 2),
        "tree_s": sum(times["tree"]),
        "padded_s": sum(times["padded"]),
    }


def summary(rows: list[dict[str, float | str]], repeats: int) -> dict[str, object]:
    """Both cases together: all raw tokens over all seconds."""
    tokens = sum(float(row["raw_tokens"]) for row in rows) * repeats
    ours = tokens / sum(float(row["tree_s"]) for row in rows)
    peer = tokens / sum(float(row["padded_s"]) for row in rows)
    return {
        "benchmark": "packing",
        "unit": "raw tokens/s, forward and backward",
        "ours": round(ours, 1),
        "peer": round(peer, 1),
        "ratio": round(ours / peer, 2),
        "target": 3.0,
        "cases": {str(row["case"]): row["ratio"] for row in rows},
    }


def report(rows: list[dict[str, float | str]], total: dict[str, object], arguments: argparse.Namespace) -> str:
    lines = [
        "# Packing: prefix trees against naive padding",
        "",
        f"`python benchmarks/packing.py {' '.join(sys.argv[1:])}`",
        "",
        f"{machine()}; commit {commit()}; seeds {arguments.seed} to {arguments.seed + arguments.repeats - 1}; "
        f"{'CPU' if arguments.cpu_time else 'wall-clock'} seconds.",
        f"Model: SmolLM2-135M's widths, {arguments.layers} layers, {vocabulary(arguments.layers)} tokens, "
        f"{'bfloat16 autocast' if arguments.bf16 else 'float32'}; {arguments.budget} positions per micro-batch.",
        "",
        "| case | raw tokens | tree tok/s | auto tok/s | padded tok/s | tree / padded [lowest, highest] |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['case']} | {r['raw_tokens']:.0f} | {r['tree_tokens_per_s']} | {r['auto_tokens_per_s']} | "
        f"{r['padded_tokens_per_s']} | {r['ratio']} [{r['ratio_low']}, {r['ratio_high']}] |"
        for r in rows
    ]
    lines += [
        "",
        f"Both cases together: {total['ours']} against {total['peer']} raw tokens/s, {total['ratio']} times.",
        "",
    ]
    return "\n".join(lines)


def machine() -> str:
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.system()}"


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    return done.stdout.strip() or "unknown"


def calibrate(arguments: argparse.Namespace) -> None:
    """Fit seconds = a T + b T^2 for one row of T tokens under both kernels; print b / a."""
    model = smollm2_sized(arguments.layers, arguments.seed)
    model.set_attn_implementation("sdpa")  # the whole square, not its blocks
    for branching in (False, True):
        lengths = (256, 768, 1536)
        took = [min(_row_seconds(model, length, branching) for _ in range(2)) for length in lengths]
        table = torch.tensor([[n, n * n] for n in lengths], dtype=torch.float64)
        # Relative errors count: divide every equation by its own time.
        scale = torch.tensor(took, dtype=torch.float64)[:, None]
        linear, square = torch.linalg.lstsq(table / scale, torch.ones_like(scale)).solution.flatten().tolist()
        pair = square / linear if branching else 2 * square / linear  # the causal kernel visits half the pairs
        print(f"{'masked' if branching else 'causal'}_pair={pair:.2e}", [round(t, 2) for t in took])


def _row_seconds(model: LlamaForCausalLM, length: int, branching: bool) -> float:
    row = torch.arange(length)[None]
    empty = torch.zeros(0, dtype=torch.int64)
    batch = PackedBatch(
        input_ids=row,
        position_ids=row,
        subtree_ends=torch.full_like(row, length),
        branching=branching,
        gather=empty,
        slots=empty,
        targets=empty,
        segment_index=empty,
        entries=empty,
        num_real_tokens=length,
    )
    began = time.process_time()
    body_hidden(body_of(model), batch).sum().backward()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one final JSON line")
    parser.add_argument("--calibrate", action="store_true", help="measure the cost model's constants instead")
    parser.add_argument("--layers", type=int, default=2, help="30 is the whole of SmolLM2-135M")
    parser.add_argument("--budget", type=int, default=1024, help="positions per micro-batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of this process's CPU, for a busy machine")
    arguments = parser.parse_args()
    if arguments.calibrate:
        calibrate(arguments)
        return
    rows = measure(arguments)
    total = summary(rows, arguments.repeats)
    text = report(rows, total, arguments)
    print(text)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(text, encoding="utf-8")
    if arguments.json:
        print(json.dumps(total))


if __name__ == "__main__":
    main()
