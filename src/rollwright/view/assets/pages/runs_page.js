// All runs: how each stands, and which of them to overlay.

import { figure, signed, visible } from "rw/format";
import { html } from "rw/kit";
import { choose, link } from "rw/routes";
import { SortableTable } from "rw/sortable_table";
import { Change, Choice, Heading, SearchField, Sparkline, StateBadge, Updated } from "rw/widgets";

export function RunsPage({ runs, query, chosen }) {
  const seen = runs.filter((run) => matches(run, query));
  return html`
    <${Heading} title="Runs"><span class="quiet">${seen.length === runs.length ? runs.length : `${seen.length} of ${runs.length}`}</span>
      <span class="spring"></span><${Selection} runs=${runs} chosen=${chosen} /><//>
    <div class="bar">
      <${SearchField} label="Name, recipe or world" value=${query.q} onChange=${(q) => choose({ q })} />
      <${Choice} label="State" value=${query.state} options=${unique(runs, "state")} onChange=${(state) => choose({ state })} />
      <${Choice} label="Recipe" value=${query.recipe} options=${unique(runs, "recipe")} onChange=${(recipe) => choose({ recipe })} />
      <${Choice} label="World" value=${query.world} options=${unique(runs, "world")} onChange=${(world) => choose({ world })} />
    </div>
    <${SortableTable} label="Runs" rows=${seen} keyOf=${(run) => run.id} columns=${columns(chosen)} first="-updated"
      rowClass=${(run) => (chosen.includes(run.id) ? "chosen" : "")} onOpen=${(run) => (location.hash = link("curves", { run: run.id, runs: run.id }))} />
    ${!seen.length && html`<p class="notice">No run matches. Clear the filters to see all ${runs.length}.</p>`}`;
}

function Selection({ runs, chosen }) {
  if (!chosen.length) return html`<span class="quiet">Tick runs to overlay their curves.</span>`;
  const [first, second] = chosen;
  return html`<span class="bar-inline">
    <a class="button main" href=${link("curves", { runs: chosen.join(",") })}>Curves of ${chosen.length}</a>
    ${chosen.length === 2 && html`<a class="button" href=${link("configuration", { run: first, other: second, runs: chosen.join(",") })}>Settings that differ</a>`}
    ${chosen.length === 2 && comparable(runs, chosen) && html`<a class="button" href=${link("compare", comparison(runs, chosen))}>Compare evaluations</a>`}
    <button type="button" onClick=${() => choose({ runs: "" })}>Clear</button></span>`;
}

function comparable(runs, chosen) {
  return chosen.every((id) => runs.find((run) => run.id === id)?.evaluations?.length);
}

function comparison(runs, chosen) {
  const [a, b] = chosen.map((id) => `${id}/${runs.find((run) => run.id === id).evaluations.at(-1)}`);
  return { a, b, runs: chosen.join(",") };
}

function columns(chosen) {
  const tick = (run) => choose({ runs: chosen.includes(run.id) ? chosen.filter((id) => id !== run.id).join(",") : [...chosen, run.id].join(",") });
  return [
    { name: "tick", title: html`<span class="unseen">Choose</span>`, cell: (run) => html`<input type="checkbox" checked=${chosen.includes(run.id)}
        aria-label=${`Choose ${visible(run.name)}`} onChange=${() => tick(run)} />` },
    { name: "name", title: "Run", value: (run) => run.name, cell: nameCell },
    { name: "state", title: "State", value: (run) => run.state, cell: (run) => html`<${StateBadge} run=${run} />` },
    { name: "step", title: "Step", value: (run) => run.step, cell: stepCell },
    { name: "success", title: "Success", value: (run) => run.success?.last, cell: (run) => trend(run.success, "success"),
      hint: "Share of training episodes that the task itself calls solved: last step, change since the first" },
    { name: "reward", title: "Reward", value: (run) => run.reward?.last, cell: (run) => trend(run.reward, "reward"),
      hint: "Mean reward of an episode: last step, change since the first" },
    { name: "episodes", title: "Episodes", number: true, value: (run) => run.episodes, cell: (run) => html`
        <a href=${link("episodes", { run: run.id })}>${figure(run.episodes)}</a>` },
    { name: "faults", title: "Faults", number: true, value: (run) => run.faults, cell: faultCell },
    { name: "updated", title: "Updated", number: true, value: (run) => run.updated, cell: (run) => html`<${Updated} moment=${run.updated} />` },
  ];
}

function nameCell(run) {
  const from = [run.recipe, run.method !== run.recipe && run.method, run.world].filter(Boolean).map(visible).join(" · ");
  return html`<div class="run-name"><a class="name foreign" href=${link("curves", { run: run.id, runs: run.id })} title=${visible(run.folder)}>${visible(run.name)}</a>
    <div class="quiet small foreign">${from || visible(run.config)}</div></div>`;
}

function stepCell(run) {
  const done = run.steps ? Math.min(1, run.step / run.steps) : null;
  return html`<div class="steps"><span>${figure(run.step)}${run.steps ? ` of ${figure(run.steps)}` : ""}</span>
    <svg width="72" height="4" aria-hidden="true"><rect class="rail" width="72" height="4" rx="2" />
      <rect class="done" width=${72 * (done ?? 0)} height="4" rx="2" /></svg></div>`;
}

function trend(given, what) {
  if (!given) return html`<span class="quiet">–</span>`;
  const change = given.values.length > 1 ? given.last - given.first : null;
  return html`<div class="trend"><${Sparkline} values=${given.values} label=${`${what} by step, now ${figure(given.last)}`} />
    <span class="trend-figures"><b>${Number.isFinite(given.last) ? signed(given.last).replace(/^[+±]/, "") : "–"}</b><${Change} value=${change} /></span></div>`;
}

function faultCell(run) {
  if (!run.faults) return html`<span class="quiet">0</span>`;
  return html`<a class="badge lost" href=${link("faults", { run: run.id })}>${figure(run.faults)}</a>`;
}

function matches(run, query) {
  if (query.state && run.state !== query.state) return false;
  if (query.recipe && run.recipe !== query.recipe) return false;
  if (query.world && run.world !== query.world) return false;
  const words = `${run.name} ${run.recipe} ${run.method} ${run.world} ${run.config}`.toLowerCase();
  return (query.q ?? "").toLowerCase().split(/\s+/).every((word) => words.includes(word));
}

/** The values that a field takes over the rows, sorted, empty ones left out. */
export function unique(rows, name) {
  return [...new Set(rows.map((row) => row[name]).filter((value) => value !== "" && value !== null && value !== undefined))].sort();
}
