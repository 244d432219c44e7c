"""Which MiniWoB++ tasks belong together, as tables, and how long their episodes may last.

Sources: WebGUM's 56 tasks, arXiv:2305.11854; the hidden test tasks of MiniWoB++; BrowserGym's train and test tasks,
which keep similar tasks on one side, arXiv:2412.05467 (as published with its experiments package).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from rollwright.contracts import ConfigError


def _names(table: str) -> tuple[str, ...]:
    return tuple(table.split())


WEBGUM_56 = _names(
    "book-flight choose-date choose-date-easy choose-date-medium choose-list click-button click-button-sequence "
    "click-checkboxes click-checkboxes-large click-checkboxes-soft click-checkboxes-transfer click-collapsible "
    "click-collapsible-2 click-color click-dialog click-dialog-2 click-link click-menu click-option click-pie "
    "click-scroll-list click-shades click-shape click-tab click-tab-2 click-tab-2-hard click-test click-test-2 "
    "click-widget count-shape email-inbox email-inbox-forward-nl email-inbox-forward-nl-turk email-inbox-nl-turk "
    "enter-date enter-password enter-text enter-text-dynamic enter-time focus-text focus-text-2 grid-coordinate "
    "guess-number identify-shape login-user login-user-popup multi-layouts multi-orderings navigate-tree "
    "search-engine social-media social-media-all social-media-some tic-tac-toe use-autocomplete use-spinner"
)

ONE_CLICK = frozenset(
    _names(
        "buy-ticket click-button click-color click-link click-menu click-pie click-pie-nodelay click-shape click-tab "
        "click-test click-test-2 click-test-transfer click-widget count-shape count-sides focus-text focus-text-2 "
        "grid-coordinate identify-shape navigate-tree stock-market"
    )
)
"""Pages that a single click decides: there a click on a fixed number truly succeeds for some seeds."""

HIDDEN_18 = _names(
    "ascending-numbers buy-ticket daily-calendar drag-shapes-2 drag-single-shape draw-circle draw-line find-greatest "
    "form-sequence form-sequence-2 form-sequence-3 generate-number hot-cold odd-or-even order-food phone-book "
    "sign-agreement stock-market"
)

BROWSERGYM_TRAIN = _names(
    "book-flight book-flight-nodelay buy-ticket choose-date choose-date-easy choose-date-medium choose-date-nodelay "
    "circle-center click-checkboxes click-checkboxes-large click-checkboxes-soft click-checkboxes-transfer "
    "click-collapsible click-collapsible-2 click-collapsible-2-nodelay click-collapsible-nodelay click-dialog "
    "click-dialog-2 click-option click-shades click-test-2 click-test-transfer count-shape daily-calendar drag-box "
    "drag-items drag-shapes drag-shapes-2 drag-single-shape drag-sort-numbers draw-circle draw-line enter-date "
    "enter-password enter-text enter-text-2 enter-text-dynamic enter-time find-midpoint focus-text focus-text-2 "
    "form-sequence identify-shape login-user login-user-popup multi-layouts multi-orderings navigate-tree "
    "odd-or-even read-table read-table-2 search-engine text-editor text-transform unicode-test use-autocomplete "
    "use-autocomplete-nodelay use-colorwheel use-colorwheel-2 use-slider use-slider-2 visual-addition"
)

BROWSERGYM_TEST = _names(
    "ascending-numbers bisect-angle choose-list click-button click-button-sequence click-color click-link "
    "click-menu click-menu-2 click-pie click-pie-nodelay click-scroll-list click-shape click-tab click-tab-2 "
    "click-tab-2-easy click-tab-2-hard click-tab-2-medium click-test click-widget copy-paste copy-paste-2 "
    "count-sides drag-circle drag-cube drag-items-grid email-inbox email-inbox-delete email-inbox-forward "
    "email-inbox-forward-nl email-inbox-forward-nl-turk email-inbox-important email-inbox-nl-turk "
    "email-inbox-noscroll email-inbox-reply email-inbox-star-reply find-greatest find-word form-sequence-2 "
    "form-sequence-3 generate-number grid-coordinate guess-number highlight-text highlight-text-2 hot-cold "
    "number-checkboxes order-food phone-book resize-textarea right-angle scroll-text scroll-text-2 sign-agreement "
    "simple-algebra simple-arithmetic social-media social-media-all social-media-some stock-market terminal "
    "tic-tac-toe use-spinner"
)

UNLISTED = ("button-delay", "chase-circle", "hover-shape", "moving-items", "simon-says")
"""Shipped with MiniWoB++ but in no published split."""

ALL_TASKS = tuple(sorted({*BROWSERGYM_TRAIN, *BROWSERGYM_TEST, *UNLISTED}))

TASK_SETS: dict[str, tuple[str, ...]] = {
    "webgum56": WEBGUM_56,
    "hidden18": HIDDEN_18,
    "browsergym_train": BROWSERGYM_TRAIN,
    "browsergym_test": BROWSERGYM_TEST,
    "all": ALL_TASKS,
}

RELOAD_ON_RESET = frozenset(
    _names(
        "book-flight book-flight-nodelay chase-circle choose-date choose-date-easy choose-date-medium "
        "choose-date-nodelay click-pie click-pie-nodelay copy-paste copy-paste-2 drag-items drag-items-grid "
        "drag-sort-numbers form-sequence hot-cold moving-items resize-textarea scroll-text scroll-text-2 "
        "sign-agreement stock-market use-colorwheel use-colorwheel-2 use-slider use-slider-2"
    )
)
"""Tasks that keep something of the last episode in the page: they start from a fresh page each time."""

POINTING = frozenset(
    _names(
        "bisect-angle chase-circle circle-center click-pie click-pie-nodelay drag-box drag-circle drag-cube drag-items "
        "drag-items-grid drag-shapes drag-shapes-2 drag-single-shape drag-sort-numbers draw-circle draw-line "
        "find-midpoint grid-coordinate highlight-text highlight-text-2 hot-cold hover-shape moving-items "
        "resize-textarea right-angle use-colorwheel use-colorwheel-2 use-slider use-slider-2 visual-addition"
    )
)
"""Tasks about places on the screen: drawn, played with the browser's own mouse, observed with each element's place."""

MAX_TURNS: dict[str, int] = {
    "book-flight": 16,
    "book-flight-nodelay": 16,
    "choose-date": 16,
    "choose-date-nodelay": 16,
    "click-checkboxes-large": 16,
    "click-checkboxes-soft": 12,
    "click-shades": 14,
    "click-tab-2-hard": 12,
    "drag-sort-numbers": 12,
    "form-sequence": 12,
    "guess-number": 20,
    "moving-items": 20,
    "number-checkboxes": 30,
    "odd-or-even": 12,
    "order-food": 16,
    "phone-book": 16,
    "search-engine": 10,
    "simon-says": 16,
    "social-media-all": 16,
    "social-media-some": 12,
    "stock-market": 30,
    "tic-tac-toe": 10,
    "use-slider-2": 12,
    "use-spinner": 14,
}
"""Step limits of tasks that need more than the default."""


def task_names(chosen: str | Sequence[str]) -> tuple[str, ...]:
    """The tasks of a named set, or the given names, checked; order kept, repeats dropped.

    Raises:
        ConfigError: no set or task has that name; the message gives the nearest ones.
    """
    if isinstance(chosen, str):
        if chosen in TASK_SETS:
            return TASK_SETS[chosen]
        chosen = [chosen]
    for name in chosen:
        if name not in ALL_TASKS:
            known = [*TASK_SETS, *ALL_TASKS]
            near = difflib.get_close_matches(name, known, n=3) or sorted(TASK_SETS)
            raise ConfigError(
                f"MiniWoB++ has no task {name!r}; nearest: {', '.join(near)}. "
                f"Named sets: {', '.join(TASK_SETS)}; single tasks are named as their html file."
            )
    if not chosen:
        raise ConfigError("the list of tasks is empty; name at least one task or a set such as 'webgum56'")
    return tuple(dict.fromkeys(chosen))
