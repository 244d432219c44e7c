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
  const doctor = useData(`${base}/doctor`);
  const facts = useData(base);
  return html`<${Heading} title=${`Faults of ${run.name}`} />
    ${run.why && html`<p class="notice error foreign">The run ended early: ${visible(run.why)}</p>`}
    <${Notes} notes=${facts.stale ? [] : facts.data?.notes} />
    <${Findings} answer=${doctor.stale ? null : doctor.data} />
    <h2>Faults</h2>
    ${faults.data?.rows.length ? html`<${FaultTables} run=${run} faults=${faults.data} />`
      : html`<${Notice} state=${faults} empty="No fault was noted: every episode, verifier and engine call came to its end." />`}`;
}

function Findings({ answer }) {
  if (!answer?.available) return null;
  return html`<h2>What the metrics say</h2>
    ${!answer.findings.length && html`<p class="notice">No rule found anything wrong.</p>`}
    <div class="findings">${answer.findings.map((finding, index) => html`<article key=${index} class="card finding">
      <h3><span class=${`badge ${severity(finding.severity)}`}>${visible(finding.severity)}</span> <span class="foreign">${visible(finding.title ?? finding.rule)}</span></h3>
      <p class="foreign">${visible(finding.text)}</p>
      ${finding.evidence && html`<p class="quiet foreign">${asText(finding.evidence)}</p>`}
      ${finding.try && html`<p class="foreign"><b>Try:</b> ${asText(finding.try)}</p>`}</article>`)}</div>
    ${answer.unjudged?.length > 0 && html`<p class="quiet small">Not judged for want of metrics: ${answer.unjudged.map(asText).join(", ")}.</p>`}`;
}

function severity(name) {
  return { error: "ill", critical: "ill", bad: "ill", warning: "stopped", warn: "stopped" }[name] ?? "running";
}

function asText(value) {
  if (Array.isArray(value)) return value.map(asText).join("; ");
  return visible(typeof value === "object" && value !== null ? JSON.stringify(value) : value);
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
