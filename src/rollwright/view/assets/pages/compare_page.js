// Two evaluations, paired episode by episode: the verdict, and the episodes that changed.

import { useData } from "rw/data";
import { words } from "rw/episodes_page";
import { count, figure, signed, visible } from "rw/format";
import { html, useMemo } from "rw/kit";
import { choose, link } from "rw/routes";
import { SortableTable } from "rw/sortable_table";
import { Change, Choice, Heading, IntervalBar, Notes, Notice, SearchField, Verdict } from "rw/widgets";

const MOST = 300;
const CHANGES = {
  won: "B succeeded, A failed", lost: "A succeeded, B failed", higher: "B earned more", lower: "B earned less",
  same: "both the same", unpaired: "only one of them played it", faulted: "one of them ended with a fault",
};

export function ComparePage({ runs, run, chosen, query }) {
  const offered = useMemo(() => runs.flatMap((each) => each.evaluations.map((name) => [`${each.id}/${name}`, `${each.name}: ${name}`])), [runs]);
  const usual = usualPair(runs, run, chosen);
  const a = query.a || usual[0];
  const b = query.b || usual[1];
  const state = useData(a && b ? `api/compare?a=${asQuery(a)}&b=${asQuery(b)}` : null);
  const answer = state.stale ? null : state.data;
  return html`<${Heading} title="Compare evaluations" />
    ${offered.length < 2 ? html`<p class="notice">A comparison needs two evaluations, and ${offered.length ? "there is one" : "there is none"}. A run evaluates before its first
      step and after its last; <code>rollwright evaluate</code> makes further ones.</p>` : html`
    <div class="bar card controls"><${Choice} label="A" value=${a} any=${null} options=${offered} onChange=${(value) => choose({ a: value, b })} />
      <button type="button" aria-label="Swap A and B" title="Swap A and B" onClick=${() => choose({ a: b, b: a })}>⇄</button>
      <${Choice} label="B" value=${b} any=${null} options=${offered} onChange=${(value) => choose({ a, b: value })} /></div>
    ${answer ? html`<${Comparison} answer=${answer} a=${a} b=${b} query=${query} />` : html`<${Notice} state=${{ ...state, data: null }} />`}`}`;
}

// The slash between run and evaluation stays, as the answers inside a report are named.
function asQuery(name) {
  return name.split("/").map(encodeURIComponent).join("/");
}

// Of two chosen runs their last evaluations, of one run its first and its last, else those of the newest two runs.
function usualPair(runs, run, chosen) {
  const withSome = chosen.map((id) => runs.find((each) => each.id === id)).filter((each) => each?.evaluations.length);
  if (withSome.length >= 2) return withSome.slice(0, 2).map((each) => `${each.id}/${each.evaluations.at(-1)}`);
  const one = [run, ...runs].find((each) => each?.evaluations.length >= 2);
  if (one) return [`${one.id}/${one.evaluations[0]}`, `${one.id}/${one.evaluations.at(-1)}`];
  const [newer, older] = runs.filter((each) => each.evaluations.length).map((each) => `${each.id}/${each.evaluations.at(-1)}`);
  return older ? [older, newer] : ["", ""];
}

function Comparison({ answer, a, b, query }) {
  const rows = answer.rows.filter((row) => (!query.only || row.change === query.only) && row.task.toLowerCase().includes((query.q ?? "").toLowerCase()));
  return html`<section class="card verdict"><p class="sentence">${visible(answer.verdict)}</p>
      <div class="two-sides">${[["A", answer.a, a], ["B", answer.b, b]].map(([letter, side, name]) => html`<${Side} key=${letter} letter=${letter} side=${side} name=${name} />`)}
        ${answer.success && html`<div><span class="quiet">Difference in success, B − A</span><b class="large">${signed(answer.success.difference)} [${signed(answer.success.low)}, ${signed(answer.success.high)}]</b></div>`}</div></section>
    <${Notes} notes=${answer.warnings} />
    <${ByTask} a=${answer.a} b=${answer.b} />
    <div class="bar"><${Counts} answer=${answer} only=${query.only} />
      <${SearchField} label="Task" value=${query.q} onChange=${(q) => choose({ q })} /></div>
    <${SortableTable} label="Pairs of episodes" rows=${rows.slice(0, MOST)} columns=${columns(a, b)} keyOf=${(row) => `${row.task} ${row.seed} ${row.attempt}`} />
    ${rows.length > MOST && html`<p class="quiet">The first ${MOST} of ${rows.length} pairs are shown.</p>`}
    ${answer.text && html`<details class="area"><summary><h2>The whole comparison as text</h2></summary><pre class="card table-text foreign">${visible(answer.text)}</pre></details>`}`;
}

function Side({ letter, side, name }) {
  return html`<div><span class="quiet foreign">${letter}: ${visible(name)}</span><${IntervalBar} given=${side.success} tone=${letter === "A" ? "before" : ""} />
    <span class="quiet small">${figure(side.num_episodes)} episodes${side.mean_return ? `, mean return ${figure(side.mean_return.value)}` : ""}</span></div>`;
}

// Success of each task that both played, the largest change first.
function ByTask({ a, b }) {
  const [other, rows] = [new Map(b.tasks.map((task) => [task.task, task])), []];
  for (const task of a.tasks) if (other.has(task.task)) rows.push({ task: task.task, a: task.success, b: other.get(task.task).success });
  const change = (row) => (row.a && row.b ? row.b.value - row.a.value : null);
  const columns = [
    { name: "task", title: "Task", value: (row) => row.task, cell: (row) => html`<span class="name foreign">${visible(row.task)}</span>` },
    { name: "a", title: "Success of A", value: (row) => row.a?.value, cell: (row) => html`<${IntervalBar} given=${row.a} tone="before" />` },
    { name: "b", title: "Success of B", value: (row) => row.b?.value, cell: (row) => html`<${IntervalBar} given=${row.b} />` },
    { name: "change", title: "Change", number: true, value: change, cell: (row) => html`<${Change} value=${change(row)} />` },
  ];
  if (rows.length < 2) return null;
  return html`<details class="by-task" open=${rows.length <= 12}><summary><h2>By task</h2> <span class="quiet">${count(rows.length, "task")}</span></summary>
    <${SortableTable} label="Success by task" rows=${rows.slice(0, MOST)} columns=${columns} first="-change" keyOf=${(row) => row.task} /></details>
    <h2>Episode by episode</h2>`;
}

function Counts({ answer, only }) {
  const counts = Object.entries(answer.rows.reduce((sums, row) => ({ ...sums, [row.change]: (sums[row.change] ?? 0) + 1 }), {}));
  const order = Object.keys(CHANGES);
  counts.sort(([one], [other]) => order.indexOf(one) - order.indexOf(other));
  return html`<div class="counts" role="group" aria-label="Show only">
    <button type="button" aria-pressed=${!only} onClick=${() => choose({ only: "" })}><b>${answer.rows.length}</b> pairs</button>
    ${counts.map(([change, number]) => html`<button type="button" key=${change} class=${change} aria-pressed=${only === change} title=${CHANGES[change] ?? ""}
      onClick=${() => choose({ only: only === change ? "" : change })}><b>${number}</b> ${visible(change)}</button>`)}</div>`;
}

function columns(a, b) {
  const sideCell = (name, side) => {
    if (!side) return html`<span class="quiet">not played</span>`;
    const run = name.split("/")[0];
    return html`<div class="side"><${Verdict} row=${side} /> <span>${figure(side.reward)}</span> <span class="quiet">${count(side.turns, "turn")}, ${words(side.stop)}</span>
      ${side.key && html`<a href=${link("episode", { run, key: side.key })}>transcript</a>`}</div>`;
  };
  return [
    { name: "task", title: "Task", value: (row) => row.task, cell: (row) => html`<span class="name foreign">${visible(row.task)}</span>` },
    { name: "seed", title: "Seed", number: true, value: (row) => row.seed, cell: (row) => html`${visible(row.seed)}${row.attempt ? ` / ${row.attempt}` : ""}` },
    { name: "change", title: "Change", value: (row) => row.change, cell: (row) => html`<span class=${`badge ${tone(row.change)}`} title=${CHANGES[row.change] ?? ""}>${visible(row.change)}</span>` },
    { name: "a", title: "A", value: (row) => row.a?.reward, cell: (row) => sideCell(a, row.a) },
    { name: "b", title: "B", value: (row) => row.b?.reward, cell: (row) => sideCell(b, row.b) },
    { name: "both", title: html`<span class="unseen">Both</span>`, cell: (row) => row.a?.key && row.b?.key && html`<a
        href=${link("pair", { a: `${a.split("/")[0]}/${row.a.key}`, b: `${b.split("/")[0]}/${row.b.key}` })}>side by side</a>` },
  ];
}

function tone(change) {
  return { won: "won", higher: "won", lost: "lost", lower: "lost", faulted: "ill" }[change] ?? "";
}
