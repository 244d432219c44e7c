"""Builds the documentation site in build/site: `make site`, or `python scripts/build_site.py [--no-api]`.

Sphinx reads a copy of docs/, so that pages can link to files outside of it: results of benchmarks and the changelog
become pages, other files become downloads. The reference of the Python API is written from what each room exports.
The build stops at a warning, at a link or an anchor that leads nowhere, and at a page that would load from the network.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import inspect
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS, SITE, STAGE = ROOT / "docs", ROOT / "build" / "site", ROOT / "build" / "site_source"

RESULTS = ROOT / "benchmarks" / "results"

# Pages of the site that live elsewhere in the repository, or get another name there.
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}

LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
# What a browser loads by itself: not the links that a reader follows.
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
)
LINKED = re.compile(
    r"""<link\b(?=[^>]*\brel\s*=\s*["']?(?:stylesheet|preload|icon|preconnect|dns-prefetch))"""
    r"""[^>]*\bhref\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
)
STYLED = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')\s]+)""")


def page_of(path: Path) -> Path | None:
    """Where a file of the repository stands in the site's sources; None where it is not a page of the site."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS)
    relative = path.relative_to(ROOT)
    if path.parent == RESULTS and path.suffix == ".md":
        return Path("results", path.name)
    return Path(PAGES[relative.name]) if str(relative) in PAGES else None


def rewrite(text: str, source: Path, wanted: set[Path]) -> str:
    """The text of a page with its links bent to the site; `wanted` gets each file that becomes a download.

    Args:
        text: Markdown.
        source: the page's file in the repository, from which its links are counted.
        wanted: files outside docs/ that the page links to.

    Raises:
        SystemExit: a link leads to a file that is not there.
    """
    here = page_of(source)
    assert here is not None

    def bent(match: re.Match[str]) -> str:
        target, anchor = match.group(1), match.group(2) or ""
        path = (source.parent / target).resolve()
        if not path.exists():
            raise SystemExit(f"{source.relative_to(ROOT)}: the link to {target} leads nowhere")
        if path.is_dir():  # the page of a folder is its README; that of the results is written here
            path = path / "README.md"
            if not path.exists() and path.parent != RESULTS:
                raise SystemExit(f"{source.relative_to(ROOT)}: {target} is a folder without a README.md")
        page = page_of(path)
        if page is None:
            wanted.add(path)
            page = Path("files", path.relative_to(ROOT))
        return os.path.relpath(page, here.parent) + anchor

    parts, last = [], 0
    for fence in FENCE.finditer(text):  # code stays as it is
        parts += [LINK.sub(bent, text[last : fence.start()]), fence.group()]
        last = fence.end()
    return "".join([*parts, LINK.sub(bent, text[last:])])


def stage() -> int:
    """Copies docs/, results and changelog to the staging folder with their links bent; gives the number of pages."""
    shutil.rmtree(STAGE, ignore_errors=True)
    wanted: set[Path] = set()
    pages = [*DOCS.rglob("*.md"), *RESULTS.glob("*.md"), *(ROOT / name for name in PAGES)]
    for source in pages:
        relative = page_of(source)
        assert relative is not None
        target = STAGE / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(rewrite(source.read_text(encoding="utf-8"), source, wanted), encoding="utf-8")
    write_results()
    for file in [*DOCS.rglob("*.png"), *DOCS.rglob("*.svg"), DOCS / "conf.py"]:
        target = STAGE / file.relative_to(DOCS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    for file in wanted:
        target = STAGE / "files" / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return len(pages)


def write_results() -> None:
    """Writes the list of all benchmark results, each under its own title."""
    folder = STAGE / "results"
    files = sorted(folder.glob("*.md"))
    lines = [f"- [{file.stem}]({file.name}): {first_title(file)}" for file in files]
    names = "\n".join(file.stem for file in files)
    text = (
        "# Results of the benchmarks\n\nEach page names the command, the commit and the machine behind its numbers.\n\n"
    )
    listed = "\n".join(lines)
    (folder / "README.md").write_text(f"{text}{listed}\n\n```{{toctree}}\n:hidden:\n\n{names}\n```\n", encoding="utf-8")


def first_title(file: Path) -> str:
    """The text of a page's first heading."""
    return next(
        (line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")), file.stem
    )


def entry(room: str, name: str, value: object) -> str:
    """One exported name as an instruction to Sphinx's autodoc; a constant's own docstring is that of its type."""
    full = f"rollwright.{room}.{name}"
    if inspect.isclass(value):
        return f".. autoclass:: {full}\n   :members:\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {full}\n"
    note = notes(ROOT / "src" / "rollwright" / room).get(name, "").replace("`", "``").replace("\n", "\n   ")
    return f".. py:data:: {full}\n   :type: {type(value).__name__}\n" + (f"\n   {note}\n" if note else "")


@functools.cache
def notes(folder: Path) -> dict[str, str]:
    """Constant -> the text that stands under it, over all files of a room."""
    found = {}
    for file in sorted(folder.rglob("*.py")):
        for line, below in itertools.pairwise(ast.parse(file.read_text(encoding="utf-8")).body):
            targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
            text = below.value if isinstance(below, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found |= {target.id: inspect.cleandoc(text.value) for target in targets if isinstance(target, ast.Name)}
    return found


def rooms() -> list[str]:
    """The rooms in the order in which docs/reference/README.md lists their pages."""
    [tree] = re.findall(
        r"```{toctree}\n(?::.*\n)*\n(.*?)```", (DOCS / "reference" / "README.md").read_text(), re.DOTALL
    )
    return tree.split()


def write_api() -> None:
    """Writes reference/<room>.md for each room: its own docstring, then every name that its door exports."""
    folder = STAGE / "reference"
    lines = []
    for room in rooms():
        module = importlib.import_module(f"rollwright.{room}")
        first = (module.__doc__ or room).strip().splitlines()[0].rstrip(".")
        # What one calls first, constants last: a page that begins with constants tells nothing.
        called = sorted(module.__all__, key=lambda name: not callable(getattr(module, name)))
        names = [entry(room, name, getattr(module, name)) for name in called]
        body = "\n".join([f".. automodule:: rollwright.{room}\n   :no-members:\n   :no-index:\n", *names])
        (folder / f"{room}.md").write_text(f"# rollwright.{room}\n\n```{{eval-rst}}\n{body}```\n", encoding="utf-8")
        lines.append(f"- [rollwright.{room}]({room}.md): {first[0].lower() + first[1:]}.")
    index = STAGE / "reference" / "README.md"
    index.write_text(index.read_text(encoding="utf-8").replace("<!-- rooms -->", "\n".join(lines)), encoding="utf-8")


def outside(text: str) -> list[str]:
    """Addresses of other hosts that a browser would load for this page or style sheet by itself."""
    return sorted({match for pattern in (LOADED, LINKED, STYLED) for match in pattern.findall(text)})


def check_network(folder: Path) -> None:
    """Raises SystemExit where a built page, style or script would ask another host for something."""
    found = []
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".html", ".css"):
            found += [f"{file.relative_to(folder)}: {url}" for url in outside(file.read_text(encoding="utf-8"))]
    if found:
        raise SystemExit("these pages would load from the network, bundle what they need:\n" + "\n".join(found))


def main() -> None:
    """Builds the site; exit code 1 and Sphinx's own words where something is wrong."""
    parser = argparse.ArgumentParser(description="Builds the documentation site in build/site.")
    parser.add_argument("--no-api", action="store_true", help="leave out the Python API: quicker, while writing pages")
    parser.add_argument("--to", type=Path, default=SITE, help="folder of the built site (default: build/site)")
    arguments = parser.parse_args()
    try:
        importlib.import_module("sphinx")
    except ImportError:
        raise SystemExit("Sphinx is not installed; run: pip install -e '.[docs]'") from None
    began, pages = time.monotonic(), stage()
    if not arguments.no_api:
        write_api()
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(STAGE), str(arguments.to)]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit("the site was not built: Sphinx's warnings above name each page and line")
    check_network(arguments.to)
    print(f"built {arguments.to / 'index.html'}: {pages} pages in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
