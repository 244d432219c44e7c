// The episodes of one run: filters, and a list that is fetched one page at a time.

import { isFrozen, pathOf, useData } from "rw/data";
import { duration, figure, visible } from "rw/format";
import { html } from "rw/kit";
import { choose, link } from "rw/routes";
import { openRow } from "rw/sortable_table";
import { Choice, Heading, Notice, Pager, SearchField, Verdict } from "rw/widgets";

const LIMIT = 100;
const FILTERS = ["task", "split", "success", "stop", "fault", "channel", "channel_sign", "tag", "group", "origin", "start", "min_reward", "max_reward", "text", "from"];
const SIGNS = [["pos", "above 0"], ["zero", "exactly 0"], ["neg", "below 0"]];

export function EpisodesPage({ run, query }) {
  const offset = Number(query.offset ?? 0) || 0;
  const asked = Object.fromEntries(FILTERS.map((name) => [name, query[name]]));
  const live = run.state === "running" && offset === 0 && !query.text ? 1 : null;
  const state = useData(pathOf(`api/run/${encodeURIComponent(run.id)}/episodes`, { ...asked, sort: query.sort, offset, limit: LIMIT }), live);
  const list = state.data;
  const filtered = FILTERS.some((name) => query[name]);
  return html`
    <${Heading} title=${`Episodes of ${run.name}`}>
      ${list && html`<span class="quiet" aria-live="polite">${filtered ? `${list.matching.toLocaleString("en")} of ${list.total.toLocaleString("en")}` : list.total.toLocaleString("en")}</span>`}
      <span class="spring"></span>
      ${list && html`<${Pager} offset=${offset} limit=${LIMIT} total=${list.matching} onChange=${(next) => choose({ offset: next || "" }, false)} />`}<//>
    <${Filters} choices=${list?.choices ?? {}} query=${query} filtered=${filtered} />
    ${isFrozen() && list && list.rows.length < list.total && html`<p class="quiet">This report holds a choice of the run's ${figure(list.total)} episodes.
      <code>rollwright view</code> on the run folder shows all of them.</p>`}
    ${list?.more && html`<p class="notice">Searched ${figure(list.searched)} of ${figure(list.total)} episodes so far.
      <button type="button" onClick=${() => choose({ from: list.searched, offset: "" })}>Search further</button></p>`}
    ${list && list.rows.length > 0 ? html`<${List} run=${run} rows=${list.rows} query=${query} fading=${state.stale} />`
      : html`<${Notice} state=${state} empty=${filtered ? "No episode passes these filters." : "No episode is stored yet."} />`}`;
}

function Filters({ choices, query, filtered }) {
  const set = (name) => (value) => choose({ [name]: value, offset: "", from: "" });
  const select = (name, label, options) => (options?.length > 1 || query[name]) && html`<${Choice} label=${label} value=${query[name]} options=${options ?? []} onChange=${set(name)} />`;
  return html`<div class="bar card controls">
    <${SearchField} label="Text of observations and actions" value=${query.text} onChange=${set("text")} />
    ${select("task", "Task", choices.task)}
    ${select("success", "Verdict", [["yes", "success"], ["no", "failure"], ["none", "no verdict"]])}
    ${select("stop", "Stopped by", choices.stop?.map((stop) => [stop, words(stop)]))}
    ${select("fault", "Faults", [["no", "without faults"], ["yes", "only faults"]])}
    ${choices.channel?.length > 0 && html`<${Choice} label="Reward part" value=${query.channel} options=${choices.channel} onChange=${set("channel")} />`}
    ${query.channel && html`<${Choice} label="its sum" value=${query.channel_sign} options=${SIGNS} onChange=${set("channel_sign")} />`}
    ${select("split", "Split", choices.split)}
    ${select("tag", "Step", choices.tag?.map((tag) => [tag, words(tag)]))}
    ${select("origin", "Played by", choices.origin)}
    ${select("start", "Began at", choices.start?.map((start) => [start, words(start)]))}
    <${Choice} label="Order" value=${query.sort} any="newest first" options=${[["old", "oldest first"], ["-reward", "highest reward"], ["reward", "lowest reward"],
      ["-turns", "most turns"], ["turns", "fewest turns"], ["-seconds", "longest"]]} onChange=${set("sort")} />
    ${filtered && html`<button type="button" onClick=${() => choose(Object.fromEntries([...FILTERS, "offset"].map((name) => [name, ""])))}>Clear filters</button>`}
  </div>`;
}

function List({ run, rows, query, fading }) {
  return html`<div class=${`table-frame ${fading ? "fading" : ""}`}><table aria-label="Episodes" class="episodes">
    <thead><tr><th scope="col">Step</th><th scope="col">Task</th><th scope="col">Verdict</th><th scope="col" class="number">Reward</th>
      <th scope="col" class="number">Turns</th><th scope="col">Stopped by</th><th scope="col">Began at</th><th scope="col">Group</th><th scope="col" class="number">Time</th></tr></thead>
    <tbody>${rows.map((row) => html`<${Row} key=${row.key} run=${run} row=${row} query=${query} />`)}</tbody>
  </table></div>`;
}

function Row({ run, row, query }) {
  const there = link("episode", { run: run.id, key: row.key, runs: query.runs });
  return html`<tr data-opens="yes" onClick=${(event) => openRow(event, () => (location.hash = there))}>
    <td>${row.step ?? visible(row.tag)}</td>
    <td><a class="name foreign" href=${there}>${visible(row.task)}</a> ${row.split !== "train" && html`<span class="badge">${visible(row.split)}</span>`}
      ${row.origin !== "policy" && html` <span class="badge">${visible(row.origin)}</span>`}</td>
    <td><${Verdict} row=${row} /></td>
    <td class="number">${figure(row.reward)}</td>
    <td class="number">${figure(row.turns)}</td>
    <td class="quiet">${words(row.stop)}</td>
    <td class="quiet">${words(row.start)}</td>
    <td>${row.group && html`<a class="mono" href=${link("group", { run: run.id, group: row.group, runs: query.runs })}>${visible(row.group).slice(0, 8)}</a>`}</td>
    <td class="number quiet">${duration(row.seconds)}</td></tr>`;
}

/** A name of the record as words: `max_turns` is "max turns". */
export function words(name) {
  return visible(name ?? "").replaceAll("_", " ");
}
