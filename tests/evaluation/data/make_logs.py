"""Makes the small logs in this folder with the real packages; run it where they are installed, without network.

    pip install inspect_ai lm_eval
    python make_logs.py inspect     # arithmetic_a.eval, arithmetic_b.eval
    python make_logs.py lm_eval     # lm_eval_a/, lm_eval_b/

The files here were made by inspect_ai 0.3.285 and lm_eval 0.4.13 (VERSIONS.txt, which the script writes).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
MACHINE = ("pretty_env_info", "total_evaluation_time_seconds")


def make_inspect() -> None:
    """Two logs of six sums in two epochs: one unscored, one broken, one cut by a limit, one edited; B lacks samples."""
    from inspect_ai import Epochs, Task, task
    from inspect_ai import eval as run_eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.log import ProvenanceData, edit_score, read_eval_log, write_eval_log
    from inspect_ai.scorer import Score, ScoreEdit, match, mean, scorer
    from inspect_ai.solver import solver

    @solver
    def troubled():
        async def solve(state, generate):
            if state.metadata.get("breaks") and state.epoch == 2:
                raise RuntimeError("the sandbox went away")
            if state.metadata.get("long"):
                state.message_limit = 1
            return await generate(state)

        return solve

    @scorer(metrics=[mean()])
    def closeness():
        async def score(state, target):
            if state.metadata.get("unscored"):
                return Score(value=float("nan"), answer="?")
            return Score(value=0.25 * len(state.output.completion), answer=state.output.completion)

        return score

    def samples(count: int) -> list[Sample]:
        marks = {2: {"unscored": True}, 3: {"breaks": True}, 4: {"long": True}}
        return [
            Sample(id=n, input=f"What is {n} + {n}?", target=str(2 * n), metadata=marks.get(n, {}))
            for n in range(1, count + 1)
        ]

    @task
    def arithmetic(count: int = 6):
        return Task(
            dataset=MemoryDataset(samples(count), name="sums"),
            solver=troubled(),
            scorer=[match(numeric=True), closeness()],
            epochs=Epochs(2, "mean"),
            fail_on_error=False,
            message_limit=3,
        )

    import tiktoken
    from inspect_ai.model import ModelOutput, get_model

    class Letters:
        """Stands in for a vocabulary that tiktoken would fetch: the mock model only counts tokens with it."""

        def encode(self, text, **options):
            return list(text)

    tiktoken.get_encoding = lambda name: Letters()

    def answers(right: int):
        def reply(messages, tools, tool_choice, config):
            n = int(messages[-1].text.split()[2])
            return ModelOutput.from_content("mockllm/model", str(2 * n if n <= right else 0))

        return reply

    for name, count, right in (("arithmetic_a", 6, 3), ("arithmetic_b", 5, 5)):
        with tempfile.TemporaryDirectory() as folder:
            model = get_model("mockllm/model", custom_outputs=answers(right))
            run_eval(arithmetic(count), model=model, log_dir=folder, display="none", max_samples=1)
            log = read_eval_log(str(next(Path(folder).glob("*.eval"))))
        if name == "arithmetic_a":
            edit_score(log, 5, "match", ScoreEdit(value="C", provenance=ProvenanceData(author="a reader")), epoch=1)
        write_eval_log(log, str(HERE / f"{name}.eval"))
    _note("inspect_ai")


def make_lm_eval() -> None:
    """The same eight questions for two dummy models: two filters, exact match and a length."""
    for name, seed in (("lm_eval_a", 1), ("lm_eval_b", 2)):
        target = HERE / name
        shutil.rmtree(target, ignore_errors=True)
        command = [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "dummy", "--tasks", "small_sums,sums_choice"),
            *("--include_path", str(HERE / "lm_eval_task"), "--log_samples", "--output_path", str(target)),
            *("--seed", str(seed)),
        ]
        subprocess.run(command, check=True, cwd=HERE / "lm_eval_task")
        for file in target.rglob("results_*.json"):  # what the machine was is no part of the test
            kept = {key: value for key, value in json.loads(file.read_text()).items() if key not in MACHINE}
            file.write_text(json.dumps(kept, indent=1))
    _note("lm_eval")


def _note(package: str) -> None:
    line = f"{package} {version(package)}\n"
    notes = HERE / "VERSIONS.txt"
    kept = (
        [old for old in notes.read_text().splitlines(keepends=True) if not old.startswith(package)]
        if notes.exists()
        else []
    )
    notes.write_text("".join(sorted([*kept, line])))


if __name__ == "__main__":
    {"inspect": make_inspect, "lm_eval": make_lm_eval}[sys.argv[1]]()
