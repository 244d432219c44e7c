// The frame of the page: what is open, which run is looked at, and whether the data are live.

import { ComparePage } from "rw/compare_page";
import { ConfigurationPage } from "rw/configuration_page";
import { CurvesPage } from "rw/curves_page";
import { LIVE_MS, isFrozen, useData } from "rw/data";
import { EpisodePage } from "rw/episode_page";
import { EpisodesPage } from "rw/episodes_page";
import { visible } from "rw/format";
import { GroupPage, PairPage } from "rw/group_page";
import { HealthPage } from "rw/health_page";
import { draw, html, useEffect } from "rw/kit";
import { link, useRoute } from "rw/routes";
import { RunsPage } from "rw/runs_page";
import { TasksPage } from "rw/tasks_page";
import { TimePage } from "rw/time_page";
import { Notice } from "rw/widgets";

// name in the address: [title in the bar, component]; a page without a title is reached from another one.
const PAGES = {
  runs: ["Runs", RunsPage],
  curves: ["Curves", CurvesPage],
  tasks: ["Tasks", TasksPage],
  episodes: ["Episodes", EpisodesPage],
  episode: ["", EpisodePage],
  group: ["", GroupPage],
  pair: ["", PairPage],
  compare: ["Compare", ComparePage],
  faults: ["Faults", HealthPage],
  configuration: ["Configuration", ConfigurationPage],
  time: ["Time", TimePage],
};
const PARENTS = { episode: "episodes", group: "episodes", pair: "compare" };

function App() {
  const { page, query } = useRoute();
  const state = useData("api/runs", LIVE_MS);
  const runs = state.data?.runs ?? [];
  const chosen = (query.runs ?? "").split(",").filter((id) => runs.some((run) => run.id === id));
  const run = runs.find((each) => each.id === query.run) ?? runs.find((each) => each.id === chosen[0]) ?? runs[0] ?? null;
  const Page = PAGES[page]?.[1];
  useEffect(() => scrollTo(0, 0), [page, query.key, query.group]);
  return html`
    <a class="skip" href="#content" onClick=${skip}>Skip to the content</a>
    <header class="top"><div class="top-row">
      <a class="brand" href=${link("runs")}><${Mark} />Rollwright</a>
      <${Tabs} page=${page} query=${query} run=${run} chosen=${chosen} />
      <${RunPicker} runs=${runs} run=${run} chosen=${chosen} page=${page} query=${query} />
      <${Liveness} state=${state} runs=${runs} />
    </div></header>
    <main id="content" tabindex="-1">${content(state, Page, { runs, run, chosen, query, page })}</main>`;
}

function content(state, Page, given) {
  if (!state.data) return html`<${Notice} state=${state} />`;
  if (!Page) return html`<p class="notice">There is no page "${visible(given.page)}". Choose one above.</p>`;
  if (!given.run) {
    return html`<p class="notice">There is no run in ${visible((state.data.folders ?? []).join(", ")) || "this folder"} yet.
      Start one, for example with <code>rollwright train grpo text/maze_grpo</code>; it shows here by itself.</p>`;
  }
  // A page keeps its own choices while one run is open and begins anew with the next.
  return html`<${Page} key=${`${given.page} ${given.run.id}`} ...${given} />`;
}

function Tabs({ page, query, run, chosen }) {
  const kept = { run: query.run ? run?.id : undefined, runs: chosen.join(",") };
  const here = PARENTS[page] ?? page;
  return html`<nav class="tabs" aria-label="Pages">
    ${Object.entries(PAGES).filter(([, [title]]) => title).map(([name, [title]]) => html`<a key=${name}
      href=${link(name, kept)} aria-current=${name === here ? "page" : undefined}>${title}</a>`)}
  </nav>`;
}

function RunPicker({ runs, run, chosen, page, query }) {
  const several = page === "time" && chosen.length > 1;
  if (runs.length < 2 || !run || several || ["runs", "curves", "compare", "pair"].includes(page)) return null;
  const open = (event) => {
    location.hash = link(PARENTS[page] ?? page, { run: event.currentTarget.value, runs: query.runs });
  };
  return html`<label class="which-run"><span class="quiet small">Run </span>
    <select value=${run.id} onChange=${open}>
      ${runs.map((each) => html`<option key=${each.id} value=${each.id}>${visible(each.name)}</option>`)}
    </select></label>`;
}

function Liveness({ state, runs }) {
  if (isFrozen()) return html`<span class="live" title="This file is a report and does not change">report</span>`;
  if (state.error) return html`<span class="live lost" role="status" title=${state.error}>offline</span>`;
  const going = runs.filter((run) => run.state === "running").length;
  return html`<span class=${`live ${going ? "on" : ""}`} role="status">${going ? `${going} live` : "idle"}</span>`;
}

function Mark() {
  return html`<svg width="20" height="20" viewBox="0 0 24 24" aria-hidden="true"><path d="M3 17 C7 17 8 7 12 7 S17 13 21 5" /><path d="M21 5 v5 M21 5 h-5" /></svg>`;
}

// The address names the page, so a jump inside the page must not go through it.
function skip(event) {
  event.preventDefault();
  document.getElementById("content").focus();
}

draw(html`<${App} />`, document.getElementById("page"));
