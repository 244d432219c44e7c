"""Writes docs/models.md: what learner and engines make of tiny random models of many families.

python scripts/write_models.py                     learner and transformers engine, two minutes
python scripts/write_models.py --vllm Llama GPT-2  these under vLLM too, half a minute each; kept for later runs
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TARGET, KEPT = ROOT / "docs" / "models.md", ROOT / "benchmarks" / "results" / "models_vllm.json"
PROMPTS = [(5, 9, 20, 33, 8, 61), (7, 11, 40), (80, 4, 4, 19, 27, 90, 13, 55, 31, 6, 72, 18, 22, 47, 3, 66, 29, 51)]
HEAD = """# Models

Which models can be trained, how their turns are packed, and which engines sample from them. Written by
`python scripts/write_models.py` from tiny random models of each family (tests/model_families.py); the same checks run
on your own model when a run starts, and without a run:

    python recipes/grpo.py ... model.path=<folder> --plan --check

**learner**: the layout that `learner.layout=auto` ends up with and the largest difference, in nats, between the
log-probs that are trained on and the model's own forward under plain attention, on logits as large as those of trained
models (above 0.005 the model is refused). *padded* in place of *auto* is a fallback: right, but no prefix is computed
once for several turns. **engines**: the largest difference between the log-probs that an engine reports for what it
samples and the model's own, at the start and after an update of all weights. *refused* ends a run before anything is
sampled. An empty cell was not tried.

"""
TAIL = """
## What is refused, whatever the family

- A checkpoint whose tensors are not those that its config.json describes: missing, unknown, or of another shape.
- `engine.max_context` above the positions of the model; for LongRoPE (Phi-3 128k) above the length at which the
  frequencies switch, since an engine and a learner would switch at different moments.
- A model whose log-probs are not its own in any layout. The message says what its configuration names.

Dropout is off in updates, for policies, references and critics, whatever the configuration says (`learner.dropout=true`
leaves it on); `model.lora_dropout` is the dropout of LoRA adapters.
SFT and the training of reward models go through TRL, which leaves the model's own dropout on: it is a regulariser
there, and no ratio of probabilities is computed.

A folder with a LoRA adapter (`adapter_config.json`, `adapter_model.safetensors`) is a model too: adapter and base are
added up, once, in the cache, and the sum is trained and sampled from; `model.lora_rank` puts a new adapter on it.
"""


def sampled_gap(engine: Any, model: Any, name: str) -> float:
    """The largest difference between an engine's log-probs and the model's own, over a few sampled actions."""
    from rollwright.generation import Sampled, Sampling, measure_parity, model_logprobs

    async def play() -> list[Sampled]:
        sampling = Sampling(temperature=1.0, max_tokens=12, seed=3)
        names = [f"{name}/{number}" for number in range(len(PROMPTS))]
        asked = [engine.generate(ids, sampling, request_id=key) for ids, key in zip(PROMPTS, names, strict=True)]
        played = await asyncio.gather(*asked)
        return [Sampled.of_generation(ids, generation) for ids, generation in zip(PROMPTS, played, strict=True)]

    rows = asyncio.run(play())
    before = model.config._attn_implementation
    if model.config.model_type != "falcon":  # whose file chooses when it is built
        model.set_attn_implementation("eager")
    gap = measure_parity(rows, model_logprobs(model, rows)).max_difference
    if model.config.model_type != "falcon":
        model.set_attn_implementation(before)
    return gap


def engine_cell(kind: str, name: str) -> dict[str, Any]:
    """What one engine makes of a family: differences at the start and after an update, or why it is refused."""
    import torch

    from rollwright.generation import make_engine
    from rollwright.learner import hand_over
    from tests.model_families import FAMILIES, build

    with tempfile.TemporaryDirectory() as folder:
        model = build(FAMILIES[name])
        model.save_pretrained(folder)
        try:
            engine = make_engine(kind, model_path=folder, context_length=128)
        except Exception as error:  # the reason is what the table is for
            return {"refused": " ".join(str(error).split())[:900]}
        try:
            gaps = [sampled_gap(engine, model, "first")]
            with torch.no_grad():
                for weight in model.parameters():
                    weight.add_(torch.randn_like(weight), alpha=0.02)
            hand_over(model, engine, version=1)
            gaps.append(sampled_gap(engine, model, "second"))
            return {"gaps": gaps}
        except Exception as error:
            return {"refused": f"{type(error).__name__}: {' '.join(str(error).split())[:900]}"}
        finally:
            engine.close()


def learner_cell(name: str) -> dict[str, Any]:
    """What the learner's check finds."""
    from rollwright.contracts import ConfigError
    from rollwright.models import check_model
    from tests.model_families import FAMILIES, build

    model = build(FAMILIES[name])
    try:
        checked = check_model(model, token_budget=1024)
    except ConfigError as error:
        return {"class": type(model).__name__, "refused": str(error)}
    gap = checked.differences["padded" if checked.layout == "padded" else "tree"]
    return {"class": type(model).__name__, "layout": checked.layout, "gap": gap, "note": checked.note}


def apart(kind: str, name: str) -> dict[str, Any]:
    """The same in a process of its own: vLLM does not let go of what it has taken."""
    words = [sys.executable, __file__, "--one", kind, name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        return {"refused": " ".join(done.stderr.split())[-300:] or f"exit code {done.returncode}"}
    return dict(json.loads(lines[-1].removeprefix("RESULT ")))


def told(cell: dict[str, Any] | None, notes: list[str], what: str) -> str:
    """A cell of the table; long messages go below it."""
    if cell is None:
        return ""
    if "refused" in cell:
        notes.append(f"- {what}: {cell['refused']}")
        return f"refused [{len(notes)}]"
    if cell.get("note"):
        notes.append(f"- {what}: {cell['note']}")
        return f"{cell['layout']}, {cell['gap']:.0e} [{len(notes)}]"
    if "gap" in cell:
        return f"{cell['layout']}, {cell['gap']:.0e}"
    first, later = cell["gaps"]
    if max(first, later) < 1e-3:
        return f"exact, {max(first, later):.0e}"
    notes.append(
        f"- {what}: off by {first:.1g} nats at the start and by {later:.2g} after an update of the weights: a run that "
        "trains is refused before it starts"
    )
    return f"refused [{len(notes)}]"


def page(vllm: dict[str, Any]) -> str:
    """The whole document."""
    from tests.model_families import FAMILIES

    lines, notes = [], []
    for name in FAMILIES:
        learner = learner_cell(name)
        cells = [
            told(learner, notes, f"{name}, learner"),
            told(engine_cell("transformers", name), notes, f"{name}, transformers"),
            told(vllm.get(name), notes, f"{name}, vLLM"),
        ]
        lines.append(f"| {name} | {learner['class']} | {' | '.join(cells)} |")
    numbered = [f"{number}. {note[2:]}" for number, note in enumerate(notes, start=1)]
    table = ["| family | class | learner | engine transformers | engine vllm |", "|---|---|---|---|---|", *lines]
    return HEAD + "\n".join(table) + "\n\n" + "\n".join(numbered) + "\n" + TAIL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vllm", nargs="*", default=[], metavar="FAMILY")
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "FAMILY"))
    words = parser.parse_args()
    if words.one:
        print("RESULT " + json.dumps(engine_cell(*words.one)))
        return
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    for name in words.vllm:
        kept[name] = apart("vllm", name)
        print(name, kept[name], flush=True)
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    TARGET.write_text(page(kept), encoding="utf-8")
    print(f"wrote {TARGET.name}")


if __name__ == "__main__":
    main()
