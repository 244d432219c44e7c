"""The walk through one training step: what is counted by hand, and one real step."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "trace_step.py"


@pytest.fixture(scope="module")
def trace() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trace_step", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["trace_step"] = module
    spec.loader.exec_module(module)
    return module


def a_step(trace: ModuleType):
    """A loop in `recipes/r.py` whose `score` lies inside `collect` and whose update calls something named `finish`."""
    tracer = trace.Tracer(lambda path: None)
    main = trace.Call("recipes/r.py", "main", 1)

    def call(file: str, name: str, caller):
        made = trace.Call(file, name, len(tracer.calls) + 2, caller)
        tracer.calls.append(made)
        return made

    tracer.calls.append(main)
    call("loop.py", "Run.steps", main)
    collect = call("loop.py", "Run.collect", main)
    call("score.py", "score", collect)
    call("score.py", "score.<locals>.<listcomp>", collect)
    before = len(tracer.calls)
    call("loop.py", "Run.score", main)
    call("recipes/r.py", "weigh", main)
    update = call("learn.py", "Learner.update", main)
    call("learn.py", "Batch.finish", update)
    call("loop.py", "Run.sync", main)
    call("loop.py", "Run.finish", main)
    for function in ("play", "play", "begin"):
        tracer.elsewhere.append((before, trace.Call("envs/maze.py", function, 1)))
    tracer.elsewhere.append((len(tracer.calls), trace.Call("envs/maze.py", "play", 1)))  # by the clock, later
    return tracer


def test_stages_follow_the_calls_of_the_loop(trace: ModuleType) -> None:
    found = trace.report(a_step(trace))
    assert found["stages"] == {
        "begin": ["recipes/r.py", "loop.py"],
        "collect": ["loop.py", "score.py", "envs/maze.py"],
        "score": ["loop.py"],
        "credit": ["recipes/r.py"],
        "update": ["learn.py"],
        "sync": ["loop.py"],
        "finish": ["loop.py"],
    }


def test_files_are_those_of_two_functions_and_the_walk_counts_each_way_back(trace: ModuleType) -> None:
    found = trace.report(a_step(trace))
    assert found["functions"] == {"recipes/r.py": 2, "loop.py": 5, "score.py": 1, "learn.py": 2}
    assert (found["files"], found["passed"], found["entered"], found["worlds_and_rewards"]) == (3, 1, 4, 1)
    # In score, credit, update and sync: two functions of loop.py and of learn.py, one of the recipe.
    assert (found["files_score_to_sync"], found["entered_score_to_sync"]) == (2, 3)
    assert found["walk"] == ["recipes/r.py", "loop.py", "score.py", "loop.py", "recipes/r.py", "learn.py", "loop.py"]
    assert found["returns"] == 3
    assert "| credit | *recipes/r.py* |" in trace.text_of(found)
    assert "`score.py`" in trace.text_of(found) and found["stages"]["collect"][1] == "score.py"


def test_a_function_is_read_once(trace: ModuleType) -> None:
    calls = [trace.Call(file, "f", 1) for file in ("a", "b", "a", "b", "c")]
    assert trace.walk(calls) == ["a", "b", "c"]


def test_a_step_without_an_end_is_refused(trace: ModuleType) -> None:
    tracer = a_step(trace)
    tracer.calls = [call for call in tracer.calls if not call.name.endswith("finish")]
    with pytest.raises(SystemExit, match="never called `finish`"):
        trace.report(tracer)


def test_callers_are_those_that_have_not_returned(trace: ModuleType) -> None:
    def steps():
        yield

    def context():
        try:
            yield
        finally:
            inner()

    def inner() -> None: ...

    def outer() -> None:
        next(loop)
        next(walker := context())
        with pytest.raises(KeyError):
            walker.throw(KeyError())
        after()

    def after() -> None: ...

    tracer = trace.Tracer(lambda path: "here.py" if path == __file__ else None, step=1)
    loop = steps()
    before = sys.getprofile()
    sys.setprofile(tracer)
    try:
        outer()
    finally:
        sys.setprofile(before)
    callers = {call.name.split(".")[-1]: call.caller for call in tracer.calls if call.caller is not None}
    assert all(callers[name].name.endswith("outer") for name in ("steps", "context", "after"))
    assert callers["inner"].name.endswith("context")


@pytest.mark.slow
def test_a_real_step_of_grpo(tmp_path: Path) -> None:
    words = ["world.name=text.bandit", "model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1"]
    words += ["rollout.max_action_tokens=2", "rollout.history=0", "rollout.group_size=8", "learner.precision=float32"]
    command = [sys.executable, str(SCRIPT), "recipes/grpo.py", "--json", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    stages = found["stages"]
    assert all(stages[stage] for stage in ("collect", "score", "credit", "update", "sync", "finish"))
    assert "recipes/grpo.py" in stages["begin"]
    assert any(file.startswith("envs/text/") for file in stages["collect"])
    assert any("engine" in file for file in stages["sync"]), "the engine takes in the weights"
    assert any("loss" in file for file in stages["update"]) and not any("store" in file for file in stages["update"])
    assert 10 < found["files"] <= found["entered"] and found["files_score_to_sync"] < found["files"]
