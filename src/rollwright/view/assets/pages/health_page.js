// What went wrong in a run: what its metrics say, and its faults.

import { LIVE_MS, useData } from "rw/data";
import { count, figure, visible } from "rw/format";
import { html } from "rw/kit";
import { link } from "rw/routes";
import { SortableTable } from "rw/sortable_table";
import { Heading, Notes, Notice } from "rw/widgets";

export function HealthPage({ run }) {
  const base = `api/run/${encodeURIComponent(run.id)}`;
  const live = run.state === "running" ? LIVE_MS : null;
  const faults = useData(`${base}/faults`, live);
  const doctor = useData(`${base}/doctor`, live);
  const facts = useData(base);
  return html`<${Heading} title=${`Faults of ${run.name}`} />
    ${run.why && html`<p class="notice error foreign">The run ended early: ${visible(run.why)}</p>`}
    <${Notes} notes=${facts.stale ? [] : facts.data?.notes} />
    <${Findings} run=${run} answer=${doctor.stale ? null : doctor.data} />
    <h2>Faults</h2>
    ${faults.data?.rows.length ? html`<${FaultTables} run=${run} faults=${faults.data} />`
      : html`<${Notice} state=${faults} empty="No fault was noted: every episode, verifier and engine call came to its end." />`}`;
}

function Findings({ run, answer }) {
  if (!answer?.available) return null;
  return html`<h2>What the metrics say</h2>
    ${!answer.findings.length && html`<p class="notice">No rule found anything wrong.</p>`}
    <div class="findings">${answer.findings.map((finding, index) => html`<${FindingCard} key=${index} run=${run} finding=${finding} />`)}</div>
    ${answer.unjudged?.length > 0 && html`<details class="area"><summary class="quiet">${count(answer.unjudged.length, "rule")} could not judge this run</summary>
      <ul class="quiet small">${answer.unjudged.map((line) => html`<li class="foreign">${visible(line)}</li>`)}</ul></details>`}`;
}

const SEVERITIES = { serious: "ill", harmful: "stopped", minor: "running" };

function FindingCard({ run, finding }) {
  return html`<article class="card finding"><h3><span class=${`badge ${SEVERITIES[finding.severity] ?? ""}`}>${visible(finding.severity)}</span>
      <span class="foreign">${visible(finding.title)}</span> <span class="quiet small">${visible(finding.certainty)}</span></h3>
    <p class="foreign">${visible(finding.text)}</p>
    <div class="two-lists"><div><h4>Seen in</h4><ul>${finding.evidence.map((line) => html`<li class="foreign"><${Evidence} run=${run} line=${line} /></li>`)}</ul></div>
      ${finding.try.length > 0 && html`<div><h4>Try</h4><ul>${finding.try.map((line) => html`<li class="foreign"><${Remedy} line=${line} /></li>`)}</ul></div>`}</div></article>`;
}

// A line that begins with the name of a metric leads to its curve.
function Evidence({ run, line }) {
  const name = line.match(/^[a-z_]+\/[\w.+-]+(\/[\w.+-]+)*/)?.[0];
  if (!name) return visible(line);
  return html`<a href=${link("curves", { run: run.id, runs: run.id, q: name })}>${visible(name)}</a>${visible(line.slice(name.length))}`;
}

// `key=value - reason`: the setting can be copied by itself.
function Remedy({ line }) {
  const [setting, ...reason] = line.split(" - ");
  return reason.length ? html`<code>${visible(setting)}</code>${` – ${visible(reason.join(" - "))}`}` : visible(line);
}

function FaultTables({ run, faults }) {
  const columns = [
    { name: "count", title: "Count", number: true, value: (row) => row.count, cell: (row) => figure(row.count) },
    { name: "kind", title: "Whose", value: (row) => row.kind, cell: (row) => html`<span class="foreign">${visible(row.kind)}</span>` },
    { name: "what", title: "What happened", value: (row) => row.what, cell: (row) => html`<span class="foreign">${visible(row.what)}</span>` },
    { name: "where", title: "To what", value: (row) => row.where, cell: (row) => html`<a class="foreign"
        href=${link("episodes", { run: run.id, fault: "yes" })}>${visible(row.where)}</a>` },
  ];
  return html`<${SortableTable} label="Faults by kind" rows=${faults.rows} columns=${columns} first="-count" keyOf=${(row) => `${row.kind} ${row.what} ${row.where}`} />
    ${faults.latest?.length > 0 && html`<h2>Latest <span class="quiet">${count(faults.latest.length, "line")} of faults.jsonl</span></h2>
      <div class="fault-log">${[...faults.latest].reverse().map((line, index) => html`<${FaultLine} key=${index} line=${line} />`)}</div>`}`;
}

function FaultLine({ line }) {
  const head = [line.step !== undefined && `step ${line.step}`, line.kind, line.stop_reason ?? line.subject, line.task ?? line.episode].filter(Boolean).join(" · ");
  return html`<details class="card"><summary class="foreign">${visible(head) || "fault"} <span class="quiet">${visible(line.fault ?? line.error ?? "").slice(0, 160)}</span></summary>
    <pre class="foreign said">${visible(JSON.stringify(line, null, 2))}</pre></details>`;
}
