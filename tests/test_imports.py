"""Imports run one way: plug-ins know the core, the core knows no plug-in, a layer knows only what lies below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "src" / "rollwright"

MAY_NOT_IMPORT = {
    "src/rollwright": ("rollwright.envs", "rollwright.rewards", "rollwright.recipes"),
    "envs": ("rollwright.rewards", "rollwright.recipes"),
    "rewards": ("rollwright.envs", "rollwright.recipes"),
}

MAY_IMPORT = {"rewards": "rollwright.envs.code.sandbox"}
"""A service, no environment: what judges foreign text does it in a process of its own."""

LAYERS = (
    {"errors", "types", "choices", "action_rule"},
    {"env", "env_check", "env_player", "fork", "reward", "reward_check", "config", "plan", "settings", "methods"}
    | {
        "outcome_text",
        "outcome_settings",
        "components",
        "tracking",
        "progress",
        "workers",
        "deadlines",
        "ray_world",
        "loopback",
    }
    | {"seals", "run_lock", "answer_cache", "chat_api"},
    {"segments", "advantages", "losses", "values", "statistics", "mixtures"},
    {
        "batching",
        "prefix_tree",
        "scoring",
        "records",
        "credit",
        "generation",
        "model_facts",
        "model_files",
        "vocabulary",
        "models",
        "adapters",
        "tiny",
        "weights",
    }
    | {
        "tree_attention",
        "chat_template",
        "codec",
        "contexts",
        "control_tokens",
        "precision",
        "ranks",
        "replay",
        "store",
        "store_checks",
        "store_files",
        "store_rows",
    },
    {
        "rollout",
        "learner",
        "model_check",
        "critic",
        "optimisation",
        "objective",
        "conditioning",
        "curriculum",
        "rerender",
        "phases",
        "starts",
        "waypoints",
        "curricula",
        "alp_gmm",
        "learnability",
        "level_replay",
        "task_space",
        "demonstrations",
        "evolving",
        "critic_body",
        "fixed_policy",
        "frozen_critic",
        "inverse_dynamics",
        "task_generators",
        "data_checks",
        "offpolicy",
        "outcome_data",
        "outcome_model",
        "packed_reader",
        "phase_replay",
        "rescoring",
        "token_baseline",
        "token_q",
        "token_steps",
        "turn_critic",
        "update_step",
        "value_learner",
        "vocabulary_critic",
        "zero",
    },
    {
        "evaluation",
        "checkpoint",
        "report",
        "assembly",
        "critic_assembly",
        "offline_assembly",
        "run_assembly",
        "start_assembly",
        "group_scores",
        "importers",
        "inputs",
        "inventory",
        "ledger",
        "lessons",
        "parity_gate",
        "pipeline",
        "resumption",
        "step_clock",
    },
    {"training", "sft", "pair_fit", "preflight", "model_plan", "recipe_entry"},
    {"cli"},
)
LAYER_OF = {module: number for number, modules in enumerate(LAYERS) for module in modules}


def imported_names(source: str) -> set[str]:
    """Every dotted name that a file imports absolutely, `from a import b` as both `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def core_modules() -> dict[str, list[Path]]:
    """Module or package of the core -> its files."""
    modules: dict[str, list[Path]] = {}
    for file in sorted(CORE.rglob("*.py")):
        head = file.relative_to(CORE).parts[0].removesuffix(".py")
        if head != "__init__":
            modules.setdefault(head, []).append(file)
    return modules


def core_imports() -> dict[str, set[str]]:
    """Module of the core -> the other modules of the core that it imports, inside functions too."""
    modules = core_modules()
    graph: dict[str, set[str]] = {}
    for module, files in modules.items():
        names = {name for file in files for name in imported_names(file.read_text(encoding="utf-8"))}
        heads = {name.split(".")[1] for name in names if name.startswith("rollwright.")}
        graph[module] = (heads & modules.keys()) - {module}
    return graph


@pytest.mark.parametrize("folder", MAY_NOT_IMPORT)
def test_imports_run_one_way(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in sorted(imported_names(file.read_text(encoding="utf-8")))
        if name.startswith(MAY_NOT_IMPORT[folder]) and not name.startswith(MAY_IMPORT.get(folder, name + "."))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_core_module_has_a_layer() -> None:
    unplaced = sorted(core_modules().keys() - LAYER_OF.keys())
    assert not unplaced, f"name the layer of {unplaced} in LAYERS"


def test_no_core_module_imports_from_a_higher_layer() -> None:
    wrong = [
        f"{module} (layer {LAYER_OF[module]}) imports {other} (layer {LAYER_OF[other]})"
        for module, others in core_imports().items()
        for other in sorted(others)
        if module in LAYER_OF and LAYER_OF.get(other, 0) > LAYER_OF[module]
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_of_one_layer_import_each_other_without_circles() -> None:
    try:
        circle: list[str] = []
        list(TopologicalSorter(core_imports()).static_order())
    except CycleError as error:
        circle = error.args[1]
    assert not circle, f"import circle: {' -> '.join(circle)}"


def test_relative_imports_are_left_to_the_plug_in_folders() -> None:
    """The table above reads absolute imports only, so the core must not use the other kind."""
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for files in core_modules().values()
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("module", ["rollwright", "rollwright.types", "rollwright.config", "rollwright.env"])
def test_the_record_and_the_contracts_import_no_torch(module: str) -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'accelerate', 'vllm'}"
    code = f"import sys, {module}; print(sorted({heavy} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["envs", "rewards", "recipes", "accelerate_configs"])
def test_a_plug_in_folder_refuses_its_second_name(package: str) -> None:
    """With the repository on sys.path `import envs` would load every class twice."""
    run = subprocess.run([sys.executable, "-c", f"import {package}"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert f"import this package as `rollwright.{package}`" in run.stderr
