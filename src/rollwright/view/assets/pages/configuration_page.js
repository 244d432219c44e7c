// The settings of a run, what it was, and what differs from another run.

import { useData } from "rw/data";
import { count, visible } from "rw/format";
import { html } from "rw/kit";
import { choose } from "rw/routes";
import { SortableTable } from "rw/sortable_table";
import { Choice, Heading, Notice, SearchField } from "rw/widgets";

export function ConfigurationPage({ runs, run, query }) {
  const others = runs.filter((each) => each.id !== run.id);
  const state = useData(`api/run/${encodeURIComponent(run.id)}`);
  const facts = state.stale ? null : state.data;
  return html`<${Heading} title=${`Configuration of ${run.name}`} />
    <div class="bar"><${SearchField} label="Key or value" value=${query.q} onChange=${(q) => choose({ q })} />
      ${others.length > 0 && html`<${Choice} label="Compare with" value=${query.other} any="no other run" options=${others.map((each) => [each.id, each.name])}
        onChange=${(other) => choose({ other, run: run.id })} />`}</div>
    ${query.other ? html`<${Difference} run=${run} other=${query.other} words=${query.q ?? ""} />`
      : facts ? html`<${Settings} facts=${facts} words=${query.q ?? ""} />` : html`<${Notice} state=${{ ...state, data: null }} />`}`;
}

function Difference({ run, other, words }) {
  const state = useData(`api/diff?a=${encodeURIComponent(run.id)}&b=${encodeURIComponent(other)}`);
  if (!state.data || state.stale) return html`<${Notice} state=${{ ...state, data: null }} />`;
  const rows = state.data.rows.filter((row) => matches(row.key, [row.a, row.b], words));
  const columns = [
    { name: "key", title: "Key", value: (row) => row.key, cell: (row) => html`<code class="foreign">${visible(row.key)}</code>` },
    { name: "a", title: visible(state.data.a), value: (row) => row.a, cell: (row) => html`<${Value} value=${row.a} />` },
    { name: "b", title: visible(state.data.b), value: (row) => row.b, cell: (row) => html`<${Value} value=${row.b} />` },
  ];
  return html`<p class="quiet">${count(state.data.rows.length, "setting")} differ${state.data.rows.length === 1 ? "s" : ""}, ${state.data.same} are the same.</p>
    ${rows.length > 0 ? html`<${SortableTable} label="Settings that differ" rows=${rows} columns=${columns} first="key" keyOf=${(row) => row.key} />`
      : html`<p class="notice">No setting differs${words ? " among those that match" : ""}.</p>`}`;
}

function Settings({ facts, words }) {
  const entries = Object.entries(facts.settings ?? {}).filter(([key, value]) => matches(key, [value], words));
  const sections = [...new Set(entries.map(([key]) => key.split(".")[0]))];
  return html`<div class="settings">${sections.map((section) => html`<section class="card" key=${section}><h2 class="foreign">${visible(section)}</h2>
      <dl>${entries.filter(([key]) => key.split(".")[0] === section).map(([key, value]) => html`<div key=${key}>
        <dt class="mono foreign">${visible(key.slice(section.length + 1) || key)}</dt><dd><${Value} value=${value} /></dd></div>`)}</dl></section>`)}</div>
    ${!entries.length && html`<p class="notice">${words ? "No key or value matches." : "This run has no config.yaml."}</p>`}
    ${facts.story?.length > 0 && html`<h2>What this run was</h2><div class="card">${facts.story.map((line) => html`<p class="foreign">${visible(line)}</p>`)}</div>`}
    ${facts.config_text && html`<details class="area"><summary><h2>config.yaml</h2></summary><pre class="card foreign said">${visible(facts.config_text)}</pre></details>`}`;
}

function Value({ value }) {
  if (value === null || value === undefined) return html`<span class="quiet">none</span>`;
  return html`<code class="foreign">${visible(typeof value === "object" ? JSON.stringify(value) : value)}</code>`;
}

function matches(key, values, words) {
  const text = `${key} ${values.map((value) => JSON.stringify(value) ?? "").join(" ")}`.toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}
