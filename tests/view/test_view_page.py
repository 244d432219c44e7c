"""The page of `rollwright view` in a real Chromium: every part renders, and foreign text does nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from rollwright.envs.web.chromium.processes import find_browser
from rollwright.run_io import RunFolder, Tracker
from rollwright.store import TrajectoryStore
from rollwright.view import write_report
from tests import builders
from tests.view_visits import PAGES, Visit, serve
from tests.viewed_runs import HOSTILE, STEPS, hostile_run, maze_run

pytestmark = [pytest.mark.browser, pytest.mark.long]

LIVE_MS = 2_500


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: two of the same world, and one whose texts and name are hostile."""
    root = tmp_path_factory.mktemp("runs")
    maze_run(root / "plain", config="run:\n  seed: 0\nlearner:\n  learning_rate: 0.001\n")
    maze_run(root / "other", good_from=3, config="run:\n  seed: 1\nlearner:\n  learning_rate: 0.002\n")
    hostile_run(root / "x<img src=x onerror=globalThis.hit=1>")
    return root


@pytest.fixture(scope="module")
def home(folder: Path) -> Iterator[str]:
    for server in serve(folder):
        yield server.url


@pytest.fixture
def visit(browser: Any, home: str) -> Iterator[Visit]:
    visit = Visit(browser, home)
    yield visit
    visit.context.close()


def run_ids(visit: Visit) -> dict[str, str]:
    """Name of each run -> the id that its addresses use."""
    answer = visit.tab.evaluate("() => fetch('api/runs').then(answer => answer.json())")
    return {run["name"]: run["id"] for run in answer["runs"]}


def test_every_page_renders_of_an_ordinary_run_and_of_a_hostile_one(visit: Visit) -> None:
    visit.open("runs")
    ids = run_ids(visit)
    assert len(ids) == 3
    for name, run in ids.items():
        for page, title in PAGES.items():
            tab = visit.open(page, run=run)
            assert tab.inner_text("h1").startswith(title), (name, page)
            assert not tab.query_selector("main [role=alert]"), (name, page, tab.inner_text("main"))
            visit.clean()


def test_the_list_of_runs_says_how_each_stands_and_overlays_those_that_are_ticked(visit: Visit) -> None:
    tab = visit.open("runs")
    row = tab.locator("tbody tr", has_text="plain")
    assert "1.00" in row.inner_text() and "+0.50" in row.inner_text()
    assert row.locator("svg.spark polyline").count() == 2
    tab.get_by_label("Choose plain").check()
    tab.get_by_label("Choose other").check()
    tab.get_by_role("link", name="Curves of 2").click()
    tab.wait_for_selector(".curve[data-metric='rollout/success_frac'] canvas")
    chart = tab.locator(".curve[data-metric='rollout/success_frac']")
    assert chart.locator(".readout span").count() == 2
    assert {"plain", "other"} <= set(tab.locator(".chip .foreign").all_inner_texts())
    tab.go_back()
    visit.settle()
    tab.get_by_label("Name, recipe or world").fill("plai")
    tab.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
    visit.clean()


def test_curves_are_found_by_name_smoothed_and_read_under_the_mouse(visit: Visit) -> None:
    tab = visit.open("curves", runs="plain")
    card = tab.locator(".curve[data-metric='policy/entropy_mean']")
    card.scroll_into_view_if_needed()
    card.locator(".u-over").hover(position={"x": 2, "y": 40})
    assert card.locator(".readout").inner_text().split() == ["step", "0", "1"]
    evaluation = tab.locator(".curve[data-metric='eval/success_frac'] .readout span")
    assert evaluation.inner_text() == "0.5 [0.3, 0.7]", "all charts tell the step under the mouse, with its interval"
    assert tab.locator(".curve[data-metric='eval/success_low']").count() == 0
    tab.get_by_label("Smoothing").fill("0.9")
    tab.wait_for_function("() => location.hash.includes('smooth=0.9')")
    tab.get_by_label("Log scale").check()
    tab.get_by_label("Metric").fill("entropy")
    tab.wait_for_function("() => document.querySelectorAll('.curve').length === 1")
    visit.clean()


def test_episodes_are_filtered_and_one_is_read_turn_by_turn(visit: Visit) -> None:
    tab = visit.open("episodes", run="plain")
    assert tab.locator("tbody tr").count() == STEPS * 8 + 16
    tab.get_by_label("Verdict").select_option("no")
    tab.wait_for_function(
        "() => document.querySelectorAll('tbody .badge.lost').length === document.querySelectorAll('tbody tr').length"
    )
    tab.get_by_label("Step").select_option("step_0")
    tab.wait_for_function("() => document.querySelectorAll('tbody tr').length === 4")
    tab.locator("tbody tr").first.click()
    tab.wait_for_selector(".turn")
    assert [tab.locator("h2", has_text="Turn").first.inner_text(), tab.locator(".rail li").count()] == ["Turn 0", 3]
    tab.keyboard.press("j")
    tab.wait_for_selector("[aria-label='Turn 1']")
    tab.keyboard.press("ArrowRight")
    tab.wait_for_selector("[aria-label='Turn 2']")
    tab.keyboard.press("k")
    tab.wait_for_selector("[aria-label='Turn 1']")
    assert "turn=1" in tab.url, "the address leads back to this turn"
    visit.clean()


def test_tokens_are_exact_coloured_by_what_the_update_did_and_read_by_keyboard(visit: Visit) -> None:
    visit.open("runs")
    rows = visit.tab.evaluate(
        "() => fetch('api/run/plain/episodes?tag=step_0&task=maze/1&success=yes&sort=old').then(a => a.json())"
    )["rows"]
    tab = visit.open("episode", run="plain", key=rows[0]["key"], turn=2)
    action = tab.locator(".turn .tokens.action")
    assert action.locator(".tok").all_inner_texts() == ["go", "·north", "<|end|>"], "spaces and special tokens are seen"
    assert tab.locator(".tokens.prompt .tok.special").all_inner_texts() == ["<|start|>"]
    colours = action.locator(".tok").evaluate_all("tokens => tokens.map(token => token.style.background)")
    assert colours[0] == colours[1] != "" and colours[2] == "", "the last token was not in the update"
    action.focus()
    tab.keyboard.press("ArrowRight")
    facts = tab.locator(".token-facts").inner_text().split("\n")
    told = dict(zip(facts[::2], facts[1::2], strict=True))
    assert (told["id"], told["advantage"], told["log-prob"], told["in the loss"]) == ("3", "0.75", "−0.7", "yes")
    for lens in ("Log-prob difference", "Mask", "Entropy", "Reward", "Surprise"):
        tab.get_by_role("button", name=lens, exact=True).click()
        tab.wait_for_selector(f"button[aria-pressed=true]:text-is('{lens}')")
        assert tab.locator(".legend .ends b").count() > 1
    tab.get_by_role("button", name="Whole prompt").click()
    tab.wait_for_function(
        "() => document.querySelectorAll('.tokens.prompt .tok').length === 21"
    )  # 3 prompts of 5, 2 actions of 3
    visit.clean()


def test_siblings_stand_side_by_side_and_their_divergence_is_marked(visit: Visit) -> None:
    visit.open("runs")
    rows = visit.tab.evaluate("() => fetch('api/run/plain/episodes?tag=step_0&task=maze/1').then(a => a.json())")[
        "rows"
    ]
    tab = visit.open("group", run="plain", group=rows[0]["group"])
    tab.wait_for_selector(".siblings")
    assert tab.locator(".sibling-head").count() == 4
    assert tab.locator(".siblings tbody tr").count() == 3
    assert "they diverge" in tab.locator(".siblings tbody tr").nth(1).inner_text()
    visit.clean()


def test_a_comparison_pairs_episodes_and_shows_those_that_changed(visit: Visit) -> None:
    tab = visit.open("compare", a="plain/start", b="plain/final")
    tab.wait_for_selector(".verdict .sentence")
    assert tab.locator(".verdict .sentence").inner_text()
    assert tab.locator("[aria-label='Success by task'] tbody tr").count() == 2
    pairs = "[aria-label='Pairs of episodes'] tbody tr"
    assert tab.locator(pairs).count() == 8
    tab.locator(".counts button.won").click()
    tab.wait_for_function("rows => document.querySelectorAll(rows).length === 4", arg=pairs)
    tab.get_by_role("link", name="side by side").first.click()
    tab.wait_for_selector(".siblings .tok")
    assert tab.locator(".sibling-head .badge").all_inner_texts() == ["failure", "success"]
    visit.clean()
    tab.go_back()
    visit.settle()
    tab.get_by_role("link", name="transcript").first.click()
    tab.wait_for_selector(".turn")
    visit.clean()


def test_two_configurations_are_told_apart(visit: Visit) -> None:
    tab = visit.open("configuration", run="plain", other="other")
    tab.wait_for_selector("tbody tr")
    assert "learner.learning_rate" in tab.inner_text("tbody") and "0.002" in tab.inner_text("tbody")
    visit.clean()


def test_foreign_text_is_shown_letter_by_letter_and_does_nothing(visit: Visit) -> None:
    visit.open("runs")
    run = next(run for name, run in run_ids(visit).items() if name.startswith("x<img"))
    tab = visit.open("episodes", run=run)
    shown = tab.inner_text("main")
    assert HOSTILE[0] in shown and HOSTILE[2] in shown and HOSTILE[3] in shown
    assert "\\u{202e}" in shown and "\\u{1b}" in shown and "\u202e" not in shown, "what would not be seen is spelt out"
    keys = visit.tab.evaluate("run => fetch(`api/run/${run}/episodes`).then(a => a.json())", run)["rows"]
    assert len(keys) == len(HOSTILE)
    for row in keys:
        for number in range(2):
            tab = visit.open("episode", run=run, key=row["key"], turn=number)
            tab.wait_for_selector(".turn")
            visit.clean()
        assert "<script>globalThis.hit=1</script>" in tab.locator(".turn .tokens.action").inner_text()
        visit.open("group", run=run, group=row["group"])
        visit.clean()
    for text in HOSTILE:
        visit.open("episodes", run=run, task=text, text=text, group=text)
        visit.open("curves", runs=text, q=text, area=text, smooth=text)
        visit.open(quote(text), run=text)
        visit.clean()


def test_a_run_that_goes_on_is_followed_without_a_reload(browser: Any, tmp_path: Path) -> None:
    with RunFolder.opened(tmp_path / "live", config_yaml="run:\n  seed: 0\n") as run:
        tracker = Tracker(run)
        tracker.log(0, {"rollout/success_frac": 0.25})
        for server in serve(tmp_path):
            visit = Visit(browser, server.url)
            visit.tab.clock.install()
            tab = visit.open("curves", runs="live")
            assert tab.inner_text(".live") == "1 live"
            readout = "() => document.querySelector(\".curve[data-metric='rollout/success_frac'] .readout\")?.innerText"
            tab.wait_for_function(f"({readout})().includes('0.25')")
            asked = len(visit.requests)
            tracker.log(1, {"rollout/success_frac": 0.75})
            for _ in range(20):  # the page's own clock is moved on; how long the answers take is the machine's matter
                tab.clock.fast_forward(LIVE_MS)
                tab.wait_for_load_state("networkidle")
                if "0.75" in (tab.evaluate(readout) or ""):
                    break
            assert "0.75" in tab.evaluate(readout)
            new = [request for request in visit.requests[asked:] if "/metrics" in request]
            assert new and all("since=" in request for request in new), "what is known is not read again"
            visit.clean()
            visit.context.close()


def test_what_the_page_computes_by_hand(visit: Visit) -> None:
    """The page's pure functions, on numbers worked out by hand."""
    tab = visit.open("runs")

    def of(module: str, expression: str) -> Any:
        return tab.evaluate(f"() => import('rw/{module}').then(m => {expression})")

    # Weight 1/2: (1/2)/(1/2) = 1; then (1/4 + 3/2)/(3/4) = 7/3. A missing value is left out of the mean.
    assert of("curve_series", "m.smoothed([1, null, 3], 0.5)") == [1, None, pytest.approx(7 / 3)]
    assert of("curve_series", "m.smoothed([1, 5, 3], 0)") == [1, 5, 3]
    lines = "[{steps: [0, 2], values: [1, -1]}, {steps: [1, 2], values: [5, 6]}]"
    table = of("curve_series", f"m.columnsOf({lines}, 0, true)")
    assert table["x"] == [0, 1, 2]
    assert [column["raw"] for column in table["columns"]] == [[1, None, None], [None, 5, 6]], "no logarithm of -1"
    curve = "{steps: [0, 1, 2, 3], mean: [1, 2, 3, 4], low: [0, 1, 2, 3], high: [2, 3, 4, 5]}"
    reference = f"{{name: 'r', curves: {{m: {curve}}}}}"
    runs, feeds = "[{id: 'a', name: 'A', steps: 2}]", "{a: {steps: [0, 1], series: {m: [5, 6]}}}"
    drawn = of("curve_series", f"m.linesOf('m', {runs}, {feeds}, {reference})")
    assert [line["steps"] for line in drawn] == [[0, 1], [0, 1, 2]], "the reference ends where the run shall end"
    assert (drawn[1]["values"], drawn[1]["high"], drawn[1]["reference"]) == ([1, 2, 3], [2, 3, 4], True)
    known = "{epoch: 0, steps: [0, 1], series: {a: [1, 2]}}"
    more = "{epoch: 0, steps: [1, 2], series: {a: [3, 4], b: [5, 6]}}"
    joined = of("metric_feed", f"m.joined({known}, {more})")
    assert (joined["steps"], joined["series"]) == ([0, 1, 2], {"a": [1, 3, 4], "b": [None, 5, 6]})
    assert of("metric_guide", "m.asPattern('eval/<name>/success_frac').test('eval/maze/success_frac')")
    assert not of("metric_guide", "m.asPattern('reward/<part>_mean').test('reward/a/b_mean')")
    # A step of 3 s, of which 2 + 0.5 are known: the rest is "other"; evaluations come on top of a step.
    times = "'time/step_s': [3, null], 'time/collect_s': [2, null], 'time/update_s': [0.5, null]"
    feed = f"{{steps: [0, 1], series: {{{times}, 'time/evaluate_s': [null, 4]}}}}"
    bars = of("time_page", f"m.stepBars({feed}, 10)")
    assert [bar["parts"] for bar in bars] == [[["collect", 2], ["update", 0.5], ["other", 0.5]], [["evaluate", 4]]]
    assert of("time_page", f"m.stepBars({feed}, 1)")[0]["total"] == 3.5  # (3 + 4) / 2
    turns = "texts => ({turns: texts.map(text => ({text}))})"
    assert of("side_by_side", f"m.firstDifference([['a', 'b'], ['a', 'c'], ['a']].map({turns}))") == 1
    assert of("side_by_side", f"m.firstDifference([['a'], ['a']].map({turns}))") == -1
    rows = (
        "[{key: '1', reward: 2, success: true, task: 'Ab', step: 1},"
        " {key: '2', reward: 1, success: null, task: 'b', step: 2}]"
    )
    wanted = "new URLSearchParams('sort=-reward&text=B&limit=1')"
    frozen = of("frozen_answers", f"m.filteredEpisodes({{rows: {rows}}}, {wanted})")
    assert (frozen["matching"], [row["key"] for row in frozen["rows"]]) == (2, ["1"])
    frozen = of("frozen_answers", f"m.filteredEpisodes({{rows: {rows}}}, new URLSearchParams('success=none'))")
    assert [row["key"] for row in frozen["rows"]] == ["2"]
    assert of("format", "m.visible('a\\u202eb\\u0000\\tc\\n')") == "a\\u{202e}b\\u{0}\tc\n"
    assert of("format", "[0, -3.14159, 12345, 1e-7, null].map(m.figure)") == ["0", "−3.142", "12,345", "1.00e−7", "–"]
    visit.clean()


@pytest.mark.slow
def test_ten_thousand_episodes_open_as_one_page_of_a_list(browser: Any, tmp_path: Path) -> None:
    run = builders.run_of(tmp_path / "many", metrics=[{"rollout/success_frac": 0.5}])
    store = TrajectoryStore(run.trajectories)
    turns = tuple(builders.turn((1,) * 20, (2, 3), 1.0, text=f"move {number}") for number in range(3))
    for step in range(10):
        played = [
            builders.episode(f"{step}/{n}", *turns, task=f"t{n % 50}", seed=n // 8, success=n % 3 == 0)
            for n in range(1_000)
        ]
        store.append(played, tag=f"step_{step}")
    for server in serve(tmp_path):
        visit = Visit(browser, server.url)
        began = time.perf_counter()
        tab = visit.open("episodes", run="many")
        tab.wait_for_selector("tbody tr")
        opened_s = time.perf_counter() - began
        assert "10,000" in tab.inner_text(".heading")
        nodes = tab.evaluate("() => document.querySelectorAll('*').length")
        asked = [request for request in visit.requests if "/api/" in request]
        size = tab.evaluate(
            "() => performance.getEntriesByType('resource').reduce((sum, each) => sum + each.encodedBodySize, 0)"
        )
        print(
            f"\n10,000 episodes: the list opens in {opened_s:.2f} s, {nodes} nodes, {len(asked)} questions, "
            f"{size / 1e3:.0f} kB"
        )
        assert tab.locator("tbody tr").count() == 100 and nodes < 3_500
        assert len(asked) <= 4 and size < 1_000_000
        tab.get_by_role("button", name="Next").click()
        tab.wait_for_function("() => document.querySelector('.pager').innerText.includes('101–200')")
        visit.clean()
        visit.context.close()


def test_a_frozen_report_shows_the_same_pages_without_a_server(browser: Any, folder: Path) -> None:
    for name in ("plain", "x<img src=x onerror=globalThis.hit=1>"):
        report = write_report(folder / name)
        visit = Visit(browser, report.resolve().as_uri())
        visit.context.set_offline(True)
        visit.open("runs")
        for page, title in PAGES.items():
            tab = visit.open(page)
            assert tab.inner_text("h1").startswith(title), page
            visit.clean()
        tab = visit.open("compare")
        assert tab.locator(".verdict .sentence").count() == (name == "plain"), "first and last evaluation are compared"
        tab = visit.open("episodes")
        group = tab.locator("tbody a.mono").first.get_attribute("href")
        tab.locator("tbody tr").first.click()
        tab.wait_for_selector(".turn")
        assert tab.locator(".turn .tokens.action .tok").count() > 0
        visit.clean()
        tab.evaluate("address => { location.hash = address }", group)
        tab.wait_for_selector(".siblings .tok")
        visit.clean()
        assert [request for request in visit.requests if not request.startswith(("file:", "data:"))] == []
        visit.context.close()


def test_the_page_asks_only_its_own_server_and_names_a_missing_one(browser: Any, folder: Path) -> None:
    [server] = [next(serving := serve(folder))]
    visit = Visit(browser, server.url)
    visit.open("runs")
    assert json.dumps(visit.requests).count(server.url) == len(visit.requests)
    visit.tab.route("**/api/**", lambda route: route.abort())
    visit.tab.evaluate("() => { location.hash = '#/tasks?run=plain' }")
    visit.tab.wait_for_selector("[role=alert]")
    assert "rollwright view" in visit.tab.inner_text("[role=alert]"), "the way on is said"
    visit.context.close()
    assert next(serving, None) is None
