"""What `web.open_web` is made of: a page of somebody else's, which may be hostile, and tasks in WebArena's format.

`foreign_page.py` reads and acts through a JavaScript world of our own (`isolated.py`); `forwarding.py` is all the
network there is; `tabs.py` and `questions.py` follow what the page opens and asks; `aria.py` reads a page as the
accessibility tree; `webarena.py` and `evaluators.py` read and judge tasks. May import `chromium/`.
"""
