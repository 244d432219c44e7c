"""The page of `rollwright view` as one file: scripts, styles and the answers that a server would give, all inside.

The page's modules import each other by bare names, so an import map whose targets are `data:` addresses is enough to
carry them. The answers lie in a script element of type JSON, in which no text can end the element.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping
from typing import Any

from rollwright.view.live.page_routes import finite
from rollwright.view.live.page_server import asset, script_hash
from rollwright.view.transcripts import visible

_STYLE = re.compile(r'<link rel="stylesheet" href="\./([\w./-]+)">')
_MAP = re.compile(r'<script type="importmap">(.*?)</script>', re.DOTALL)
_SCRIPT = re.compile(r'<script src="\./([\w./-]+)"></script>')
_MODULE = re.compile(r'<script type="module" src="\./([\w./-]+)"></script>')


def frozen_page(title: str, answers: Mapping[str, Any]) -> str:
    """The page as HTML.

    Args:
        title: foreign text, of the browser's window.
        answers: what `api/...` would answer, by address; a picture is a `data:` address.
    """
    # The page as the server sends it; below, its parts are put inside.
    page = _text("index.html")
    allowed: list[str] = []

    def script(kind: str, content: str) -> str:
        # HTML ends a script at these words even inside a JavaScript string.
        if "</script" in content or "<!--" in content:
            raise AssertionError("a file of the page would end its own script element")
        # Collected while the scripts are put in, so the policy is written after all of them.
        allowed.append(f"'{script_hash(content)}'")
        return f"<script{kind}>{content}</script>"

    # Functions and no texts as replacements: `sub` would read backslashes in a text as group references.
    page = _STYLE.sub(lambda found: f"<style>{_text(found[1])}</style>", page)
    page = _MAP.sub(lambda found: script(' type="importmap"', _carried(found[1])), page)
    page = _SCRIPT.sub(lambda found: script("", _text(found[1])), page)
    # The answers stand before the module that reads them.
    page = _MODULE.sub(lambda found: _data(answers) + script(' type="module"', _text(found[1])), page)
    page = re.sub(r"<title>.*?</title>", lambda _: f"<title>{html.escape(visible(title))}</title>", page, count=1)
    # A second lock behind the text nodes that the page writes: scripts of this file alone, and nothing is fetched.
    policy = (
        f"default-src 'none'; script-src {' '.join(allowed)} data:; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    lock = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    # A policy in a meta element binds only what follows it, and the charset must stand near the start of the file.
    return page.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{lock}', 1)


def as_script_text(content: Any) -> str:
    """JSON that can stand in a script element: ASCII alone, and no `<` that could begin an end tag or a comment."""
    # Browsers parse no NaN.
    text = json.dumps(finite(content), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(answers: Mapping[str, Any]) -> str:
    content = as_script_text({"frozen": True, "answers": answers})
    return f'<script type="application/json" id="frozen">{content}</script>'


def _carried(import_map: str) -> str:
    """The import map with each file in place of its address."""
    names = json.loads(import_map)["imports"]
    carried = {name: _data_address(_text(place.removeprefix("./"))) for name, place in names.items()}
    return json.dumps({"imports": carried})


def _data_address(script: str) -> str:
    # Base64, since a data address takes neither quotes nor line ends as they are.
    return f"data:text/javascript;base64,{base64.b64encode(script.encode()).decode()}"


def _text(name: str) -> str:
    found = asset(name)
    if found is None:
        # No error of the user's: the files come with the package.
        raise AssertionError(f"the page lacks its file {name}: the installation is not whole")
    return found.read_text(encoding="utf-8")
