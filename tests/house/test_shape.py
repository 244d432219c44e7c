"""Shape: sizes that a reader takes in, and a docstring on everything public."""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "src" / "rollwright"
FOLDERS = (CORE, ROOT / "rewards", ROOT / "recipes")

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 70
MOST_LINES_OF_A_RECIPE = 160
"""Of what is no setting: see `lines_without_settings`."""
MOST_ENTRIES_OF_A_FOLDER = 20
LEAST_COMMENTED = 0.01
"""Share of the core's lines that carry a comment: what there is today; it may only grow."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def files() -> list[Path]:
    return [file for folder in FOLDERS for file in sorted(folder.rglob("*.py"))]


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def lengths() -> Iterator[tuple[int, str]]:
    """Lines of every function, with its place."""
    for file in files():
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield (node.end_lineno or node.lineno) - node.lineno + 1, f"{file.relative_to(ROOT)}: {node.name}"


def bare(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Public functions, classes and methods without a docstring."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from bare(node.body, f"{prefix}{node.name}.")


@cache
def settings_classes() -> frozenset[str]:
    """Names of all classes that a configuration is made of: `Config` and what comes of it, whatever it is called."""
    bases = {
        node.name: {ast.unparse(base).split(".")[-1] for base in node.bases}
        for file in files()
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.ClassDef)
    }
    found = {"Config"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return frozenset(found)


def lines_without_settings(text: str) -> int:
    """Lines of a recipe without its settings classes and the blank lines after each; everything else counts."""
    lines = text.splitlines()
    count = len(lines)
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & settings_classes():
            start, end = min([node.lineno, *(d.lineno for d in node.decorator_list)]), node.end_lineno or node.lineno
            while end < len(lines) and not lines[end].strip():
                end += 1
            count -= end - start + 1
    return count


def num_comments(text: str) -> int:
    return sum(token.type == tokenize.COMMENT for token in tokenize.generate_tokens(io.StringIO(text).readline))


def test_no_file_is_longer_than_a_reader_takes_in() -> None:
    counts = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files()}
    assert not {name: count for name, count in counts.items() if count > MOST_LINES_OF_A_FILE}


def test_a_recipe_is_as_long_as_its_algorithm() -> None:
    """What is longer hides the algorithm: data, critics and reports belong into their rooms."""
    recipes = sorted((ROOT / "recipes").glob("*.py"))
    counts = {file.name: lines_without_settings(file.read_text(encoding="utf-8")) for file in recipes}
    assert not {name: count for name, count in counts.items() if count > MOST_LINES_OF_A_RECIPE}


def test_settings_do_not_count_as_lines_of_a_recipe() -> None:
    recipe = "import x\n\n\nclass A(LoopConfig):\n    a = 1\n\n\nclass B(x.Other):\n    pass\n"
    assert lines_without_settings(recipe) == 5


def test_functions_are_short() -> None:
    found = list(lengths())
    assert not [place for length, place in found if length > MOST_LINES_OF_A_FUNCTION]
    sizes = sorted(length for length, _ in found)
    assert statistics.median(sizes) <= 12
    assert sizes[int(0.9 * len(sizes))] <= 40


def test_no_folder_of_the_core_has_more_entries_than_a_reader_takes_in() -> None:
    folders = [CORE, *(entry for entry in CORE.rglob("*") if entry.is_dir() and entry.name != "__pycache__")]
    counts = {
        str(folder.relative_to(ROOT)): len(
            [e for e in folder.iterdir() if e.name not in ("__init__.py", "__pycache__", "py.typed")]
        )
        for folder in folders
    }
    assert not {name: count for name, count in counts.items() if count > MOST_ENTRIES_OF_A_FOLDER}


def test_everything_public_has_a_docstring() -> None:
    missing = [f"{file.relative_to(ROOT)}: {name}" for file in files() for name in bare(tree_of(file).body)]
    missing += [str(file.relative_to(ROOT)) for file in files() if not ast.get_docstring(tree_of(file))]
    assert not missing, "\n".join(missing)


def test_comments_say_why_somewhere() -> None:
    texts = [file.read_text(encoding="utf-8") for file in sorted(CORE.rglob("*.py"))]
    share = sum(map(num_comments, texts)) / sum(len(text.splitlines()) for text in texts)
    print(f"{share:.2%} of the core's lines carry a comment")
    assert share >= LEAST_COMMENTED
