"""Sphinx settings of the documentation site. `scripts/build_site.py` copies this folder and builds from the copy."""

from __future__ import annotations

import re
from typing import Any

import rollwright

project = "Rollwright"
author = "The Rollwright authors"
project_copyright = "2026, the Rollwright authors. Apache-2.0"
version = release = rollwright.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["files/**"]

# A table of contents may name a page that this checkout does not have; a page that no table names is an error.
suppress_warnings = ["toc.not_readable", "misc.highlighting_failure"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

napoleon_custom_sections = [("Sources", "Notes"), ("Source", "Notes"), ("Oracles", "Notes")]
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"Rollwright {release}"
html_static_path: list[str] = []
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
# System fonts and plain colours: a page asks no other host for anything.
html_theme_options: dict[str, Any] = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7db4f0", "color-brand-content": "#7db4f0"},
}


def tidy(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Turns the Markdown of our docstrings into reStructuredText: `name`, `name`s, and bars that are only bars."""
    parts = re.split(r"(?<!`)(`[^`]+`)(?!`)", "\n".join(lines))
    for number in range(0, len(parts), 2):
        text = parts[number].replace("|", r"\|")
        # `name`s: reStructuredText wants an empty mark between the code and the letter.
        parts[number] = rf"\ {text}" if number and text[:1].isalnum() else text
    for number in range(1, len(parts), 2):
        parts[number] = f"`{parts[number]}`"
    lines[:] = "".join(parts).split("\n")


def setup(app: Any) -> None:
    """Called by Sphinx. Before napoleon (500), which would split `module:Attribute` at its colon."""
    app.connect("autodoc-process-docstring", tidy, priority=400)
