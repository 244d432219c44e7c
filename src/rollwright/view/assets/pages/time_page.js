// Where the time of a run went: stages of the whole run, and of each step.

import { useData } from "rw/data";
import { duration, figure, visible } from "rw/format";
import { html, useMemo, useState } from "rw/kit";
import { useMetrics } from "rw/metric_feed";
import { Heading, Notice } from "rw/widgets";

// stage: [colour, metrics of one step that add up to it]. The order is that of the step.
const STAGES = {
  collect: ["#3d6bea", "playing episodes"], greedy: ["#6f92f2", "greedy episodes"], score: ["#1c9ac0", "rewards and verifiers"],
  update: ["#e0812b", "the learner"], fit: ["#c9a227", "critics"], sync: ["#8a63d2", "handing weights over"],
  evaluate: ["#1f9d72", "evaluations"], checkpoint: ["#c64a8b", "checkpoints"], evolve: ["#7a8b1f", "new tasks"], other: ["#98a1b0", "everything else"],
};
const MOST_BARS = 120;

export function TimePage({ runs, run, chosen }) {
  const shown = chosen.length > 1 ? chosen.map((id) => runs.find((each) => each.id === id)) : [run];
  return html`<${Heading} title=${shown.length > 1 ? "Where the time went" : `Where the time of ${run.name} went`} />
    <${StageLegend} />
    ${shown.map((each) => html`<${RunTime} key=${each.id} run=${each} />`)}`;
}

function StageLegend() {
  return html`<p class="stage-legend">${Object.entries(STAGES).map(([name, [colour, title]]) => html`<span key=${name} class="dotted" style=${{ "--dot": colour }}>
    <b>${name}</b> <span class="quiet">${title}</span></span>`)}</p>`;
}

function RunTime({ run }) {
  const state = useData(`api/run/${encodeURIComponent(run.id)}`, run.state === "running" ? 1 : null);
  const { feeds } = useMetrics([run]);
  if (!state.data || state.stale) return html`<${Notice} state=${{ ...state, data: null }} />`;
  const seconds = Object.entries(state.data.seconds ?? {}).filter(([, value]) => value > 0);
  const total = seconds.reduce((sum, [, value]) => sum + value, 0);
  return html`<section class="card time"><h2 class="foreign">${visible(run.name)} <span class="quiet">${duration(total)} in steps and evaluations</span></h2>
    ${total > 0 ? html`<${WholeBar} seconds=${seconds} total=${total} />` : html`<p class="quiet">No step is done yet.</p>`}
    <div class="stages-and-steps">${total > 0 && html`<${StageTable} seconds=${seconds} total=${total} />`}<${StepBars} feed=${feeds[run.id]} /></div>
    <${Ledger} ledger=${state.data.ledger ?? {}} /></section>`;
}

function colourOf(stage) {
  return STAGES[stage]?.[0] ?? STAGES.other[0];
}

function WholeBar({ seconds, total }) {
  const sorted = [...seconds].sort(([, one], [, other]) => other - one);
  return html`<div class="whole-bar" role="img" aria-label=${sorted.map(([name, value]) => `${name} ${share(value, total)}`).join(", ")}>
      ${sorted.map(([name, value]) => html`<span key=${name} style=${{ background: colourOf(name), flexGrow: value }} title=${`${name}: ${duration(value)}, ${share(value, total)}`}></span>`)}</div>`;
}

function StageTable({ seconds, total }) {
  const sorted = [...seconds].sort(([, one], [, other]) => other - one);
  return html`<table class="stages" aria-label="Seconds by stage"><tbody>${sorted.map(([name, value]) => html`<tr key=${name}><td><span class="dotted foreign" style=${{ "--dot": colourOf(name) }}>${visible(name)}</span></td>
      <td class="number">${duration(value)}</td><td class="number">${share(value, total)}</td></tr>`)}</tbody></table>`;
}

function share(value, total) {
  return `${((100 * value) / total).toFixed(value / total < 0.01 ? 1 : 0)}%`;
}

/** Seconds by stage of each step, or means over several steps where there are many: [{first, last, parts, total}]. */
export function stepBars(feed, most) {
  if (!feed) return [];
  const series = Object.fromEntries(Object.keys(STAGES).map((stage) => [stage, feed.series[`time/${stage}_s`] ?? []]));
  const each = feed.steps.map((step, index) => {
    const parts = Object.entries(series).map(([stage, values]) => [stage, values[index] ?? 0]).filter(([, value]) => value > 0);
    const sum = parts.filter(([stage]) => stage !== "evaluate").reduce((total, [, value]) => total + value, 0);
    const rest = (feed.series["time/step_s"]?.[index] ?? 0) - sum;
    return { step, parts: rest > 0 ? [...parts, ["other", rest]] : parts };
  }).filter(({ parts }) => parts.length);
  const width = Math.ceil(each.length / most) || 1;
  return Array.from({ length: Math.ceil(each.length / width) }, (_, index) => meanBar(each.slice(index * width, (index + 1) * width)));
}

function meanBar(steps) {
  const sums = {};
  for (const { parts } of steps) for (const [stage, value] of parts) sums[stage] = (sums[stage] ?? 0) + value / steps.length;
  const parts = Object.keys(STAGES).filter((stage) => sums[stage]).map((stage) => [stage, sums[stage]]);
  return { first: steps[0].step, last: steps.at(-1).step, parts, total: parts.reduce((sum, [, value]) => sum + value, 0) };
}

function StepBars({ feed }) {
  const bars = useMemo(() => stepBars(feed, MOST_BARS), [feed]);
  const [chosen, setChosen] = useState(null);
  if (bars.length < 2) return null;
  const highest = Math.max(...bars.map((bar) => bar.total));
  const bar = bars[chosen ?? bars.length - 1] ?? bars.at(-1);
  return html`<div><h3>Seconds by step <span class="quiet">${bar.first === bar.last ? `step ${bar.first}` : `steps ${bar.first} to ${bar.last}`}: ${figure(bar.total)} s (${bar.parts.map(([stage, value]) => `${stage} ${figure(value)}`).join(", ")})</span></h3>
    <div class="step-bars" role="img" aria-label=${`Seconds of ${bars.length} steps by stage, at most ${figure(highest)} s`} onMouseLeave=${() => setChosen(null)}>
      ${bars.map((each, index) => html`<div key=${each.first} class="step-bar" onMouseEnter=${() => setChosen(index)}>
        ${[...each.parts].reverse().map(([stage, value]) => html`<span key=${stage} style=${{ background: colourOf(stage), height: `${(100 * value) / highest}%` }}></span>`)}</div>`)}</div>
    <div class="step-axis quiet small"><span>step ${bars[0].first}</span><span>highest ${figure(highest)} s</span><span>step ${bars.at(-1).last}</span></div></div>`;
}

function Ledger({ ledger }) {
  const lanes = Object.entries(ledger).filter(([, parts]) => Object.keys(parts).length);
  if (!lanes.length) return null;
  return html`<h3>What each lane was doing</h3>${lanes.map(([lane, parts]) => html`<div class="lane" key=${lane}><span class="foreign">${visible(lane)}</span>
    <div class="whole-bar thin">${Object.entries(parts).sort(([, one], [, other]) => other - one).map(([name, value], index) => html`<span key=${name}
      class=${`tone-${index % 4}`} style=${{ flexGrow: value }} title=${`${name}: ${share(value, 1)}`}>${value > 0.12 ? html`<i class="foreign">${visible(name)} ${share(value, 1)}</i>` : ""}</span>`)}</div></div>`)}`;
}
