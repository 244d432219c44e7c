// Curves of one run or of several overlaid, by area, with smoothing, intervals and the recipe's reference.

import { CurveCard } from "rw/curve_chart";
import { RUN_COLOURS, hasNumbers, isIntervalEnd, linesOf } from "rw/curve_series";
import { useData } from "rw/data";
import { count, visible } from "rw/format";
import { html, useMemo, useState } from "rw/kit";
import { useMetrics } from "rw/metric_feed";
import { AREAS, OVERVIEW, areaOf, useMetricGuide } from "rw/metric_guide";
import { choose } from "rw/routes";
import { Choice, Heading, SearchField, StateBadge, Toggle } from "rw/widgets";

const MAX_RUNS = 8;

export function CurvesPage({ runs, run, chosen, query }) {
  const shown = useShown(runs, run, chosen);
  const { feeds, error, loading } = useMetrics(shown);
  const guide = useMetricGuide();
  const facts = useData(`api/run/${encodeURIComponent(shown[0].id)}`);
  const referenceName = facts.stale ? null : facts.data?.reference;
  const reference = useData(referenceName ? `api/reference/${encodeURIComponent(referenceName)}` : null);
  const names = useMemo(() => metricNames(shown, feeds), [shown, feeds]);
  const [wide, setWide] = useState("");
  const weight = Math.min(0.99, Math.max(0, Number(query.smooth ?? 0) || 0));
  const settings = { shown, feeds, guide, weight, logarithmic: query.log === "1", wide, setWide,
    reference: referenceName && query.reference !== "0" ? reference.data : null };
  return html`
    <${Heading} title=${shown.length === 1 ? `Curves of ${shown[0].name}` : `Curves of ${shown.length} runs`}><span class="spring"></span><//>
    <${Chosen} runs=${runs} shown=${shown} chosen=${chosen} />
    <${Controls} query=${query} weight=${weight} names=${names} reference=${reference.data} />
    ${error && html`<p class="notice error" role="alert">${error}</p>`}
    ${loading ? html`<p class="waiting">Loading the metrics…</p>` : html`<${Sections} names=${names} query=${query} settings=${settings} />`}`;
}

// The same list as long as the same runs are chosen, so that charts are not drawn anew with each answer.
function useShown(runs, run, chosen) {
  const ids = chosen.length ? chosen.slice(0, MAX_RUNS) : [run.id];
  const named = ids.map((id) => runs.find((each) => each.id === id));
  return useMemo(() => named, [JSON.stringify(named.map((each) => [each.id, each.name, each.state, each.steps]))]);
}

function metricNames(shown, feeds) {
  const names = new Set();
  for (const { id } of shown) {
    for (const [name, values] of Object.entries(feeds[id]?.series ?? {})) if (hasNumbers(values)) names.add(name);
  }
  return [...names].filter((name) => name.includes("/") && !isIntervalEnd(name, names)).sort();
}

function Chosen({ runs, shown, chosen }) {
  const others = runs.filter((each) => !shown.includes(each) && !shown.some((one) => one.id === each.id));
  const ids = shown.map((each) => each.id);
  const set = (list) => choose({ runs: list.join(",") });
  return html`<div class="bar chips">
    ${shown.map((each, index) => html`<span class="chip" key=${each.id} style=${{ "--dot": RUN_COLOURS[index] }}>
      <span class="foreign">${visible(each.name)}</span><${StateBadge} run=${each} />
      ${shown.length > 1 && html`<button type="button" class="icon" aria-label=${`Take ${visible(each.name)} off`}
        onClick=${() => set(ids.filter((id) => id !== each.id))}>×</button>`}</span>`)}
    ${others.length > 0 && shown.length < MAX_RUNS && html`<${Choice} label="" value="" any="+ Add a run" options=${others.map((each) => [each.id, each.name])}
      onChange=${(id) => id && set([...ids, id])} />`}
    ${chosen.length > MAX_RUNS && html`<span class="quiet">The first ${MAX_RUNS} of ${chosen.length} are drawn.</span>`}
  </div>`;
}

function Controls({ query, weight, names, reference }) {
  const areas = sortedAreas(names);
  return html`<div class="bar card controls">
    <${SearchField} label="Metric" value=${query.q} placeholder="name or area" onChange=${(q) => choose({ q })} />
    <${Choice} label="Area" value=${query.area} any="all, overview first" options=${areas.map((area) => [area, AREAS[area] ?? area])} onChange=${(area) => choose({ area })} />
    <label class="choice"><span>Smoothing ${weight ? weight.toFixed(2) : "off"}</span>
      <input type="range" min="0" max="0.98" step="0.02" value=${weight} onInput=${(event) => choose({ smooth: Number(event.currentTarget.value) || "" })} /></label>
    <${Toggle} label="Log scale" on=${query.log === "1"} onChange=${(on) => choose({ log: on ? "1" : "" })} />
    ${reference && html`<${Toggle} label=${`Reference (${count(reference.seeds, "seed")})`} on=${query.reference !== "0"} onChange=${(on) => choose({ reference: on ? "" : "0" })} />`}
  </div>`;
}

function sortedAreas(names) {
  const order = Object.keys(AREAS);
  const rank = (area) => (order.includes(area) ? order.indexOf(area) : order.length);
  return [...new Set(names.map(areaOf))].sort((one, other) => rank(one) - rank(other) || one.localeCompare(other));
}

function Sections({ names, query, settings }) {
  if (!names.length) return html`<p class="notice">No metrics yet. They appear when the first step is done.</p>`;
  const words = (query.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length) {
    const found = names.filter((name) => words.every((word) => searched(name, settings.guide).includes(word)));
    return found.length ? html`<${Charts} names=${found} settings=${settings} />`
      : html`<p class="notice">No metric is called "${visible(query.q)}". The ${names.length} metrics are listed when the field is empty.</p>`;
  }
  if (query.area) return html`<${Charts} names=${names.filter((name) => areaOf(name) === query.area)} settings=${settings} />`;
  const first = OVERVIEW.filter((name) => names.includes(name));
  return html`${first.length > 0 && html`<h2>Overview</h2><${Charts} names=${first} settings=${settings} />`}
    ${sortedAreas(names).map((area) => html`<${Area} key=${area} area=${area} names=${names.filter((name) => areaOf(name) === area)} settings=${settings} />`)}`;
}

function searched(name, guide) {
  return `${name} ${AREAS[areaOf(name)] ?? ""} ${guide(name)?.text ?? ""}`.toLowerCase();
}

function Area({ area, names, settings }) {
  const [open, setOpen] = useState(false);
  return html`<details class="area" open=${open} onToggle=${(event) => setOpen(event.currentTarget.open)}>
    <summary><h2>${visible(AREAS[area] ?? area)}</h2> <span class="quiet">${count(names.length, "metric")}</span></summary>
    ${open && html`<${Charts} names=${names} settings=${settings} />`}</details>`;
}

function Charts({ names, settings }) {
  return html`<div class="charts">${names.map((name) => html`<${ChartOf} key=${name} name=${name} settings=${settings} />`)}</div>`;
}

function ChartOf({ name, settings }) {
  const { shown, feeds, reference, guide, weight, logarithmic, wide, setWide } = settings;
  const lines = useMemo(() => linesOf(name, shown, feeds, reference), [name, shown, feeds, reference]);
  return html`<${CurveCard} name=${name} lines=${lines} weight=${weight} logarithmic=${logarithmic} guide=${guide(name)}
    wide=${wide === name} onWide=${() => setWide(wide === name ? "" : name)} />`;
}
