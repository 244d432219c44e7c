"""The page's own files: libraries as they were published, modules that the import map knows, no way to markup."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[2] / "src" / "rollwright" / "view" / "assets"
OWN = sorted(path for path in ASSETS.rglob("*.js") if path.parent.name != "vendor")
STYLES = sorted((ASSETS / "styles").glob("*.css"))


def import_map() -> dict[str, str]:
    """Name that a module imports by -> file."""
    page = (ASSETS / "index.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="importmap">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])["imports"]  # type: ignore[no-any-return]


def test_the_libraries_are_those_that_their_table_names() -> None:
    table = (ASSETS / "vendor" / "README.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `([^`]+)` \|.*`([0-9a-f]{64})` \|$", table, re.MULTILINE))
    held = {path.name for path in (ASSETS / "vendor").iterdir() if path.suffix in (".js", ".css")}
    assert set(told) == held
    for name, digest in told.items():
        assert hashlib.sha256((ASSETS / "vendor" / name).read_bytes()).hexdigest() == digest, name
    for licence in set(re.findall(r"`(LICENSE[^`]+)`", table)):
        assert (ASSETS / "vendor" / licence).stat().st_size > 500


def test_every_module_is_in_the_import_map_and_every_entry_is_a_file() -> None:
    named = {name: ASSETS / target for name, target in import_map().items()}
    assert all(path.is_file() for path in named.values())
    assert {path.resolve() for path in named.values()} >= {path.resolve() for path in OWN if path.name != "main.js"}
    page = (ASSETS / "index.html").read_text(encoding="utf-8")
    for target in re.findall(r'(?:src|href)="(\./[^"]+)"', page):
        assert (ASSETS / target).is_file(), target
    assert {path.name for path in STYLES} == set(re.findall(r'href="\./styles/([a-z_]+\.css)"', page))


def test_modules_import_by_names_of_the_map_what_is_exported_there() -> None:
    """A frozen report resolves names by the map alone, and a name that is missing would stop the whole page."""
    known = import_map()
    for path in OWN:
        text = path.read_text(encoding="utf-8")
        for names, source in re.findall(r'^import \{([^}]+)\} from "([^"]+)";$', text, re.MULTILINE):
            assert source in known, f"{path.name}: {source}"
            if source.startswith("rw/"):
                other = (ASSETS / known[source]).read_text(encoding="utf-8")
                for name in (name.strip() for name in names.split(",") if name.strip()):
                    assert re.search(rf"^export .*\b{name}\b", other, re.MULTILINE), f"{path.name}: {name} of {source}"
        assert len(re.findall(r"^import ", text, re.MULTILINE)) == len(
            re.findall(r'^import .* from "', text, re.MULTILINE)
        )


def test_no_own_module_makes_markup_or_code_of_a_text() -> None:
    ways = (
        r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySet|document\.write|\beval\(|new Function|srcdoc|</script"
    )
    for path in [*OWN, *STYLES]:
        found = re.search(ways, path.read_text(encoding="utf-8"))
        assert found is None, f"{path.name}: {found and found[0]}"
    page = (ASSETS / "index.html").read_text(encoding="utf-8")
    assert re.search(r"\son[a-z]+=|style=|https?:", page) is None
    # Nothing that a style sheet could fetch.
    assert all("url(" not in path.read_text(encoding="utf-8") for path in STYLES)
