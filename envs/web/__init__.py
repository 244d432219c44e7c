"""Web worlds: real pages in a headless Chromium, and small sites that need none.

Here lie the worlds `web.miniwob`, `web.browsergym` and `web.open_web` (`web.sites` is the package `sites`) and what
they share: the grammar of actions (`page_actions.py`), the lines that a policy reads (`observe.py`), the same lines
taken apart again (`scene.py`). `chromium/` is the lowest room; `open_pages/`, `miniwob_tasks/` and `sites/` may import
it and the shared modules, and not one another.
"""
