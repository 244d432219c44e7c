// One run by task: how often each was solved at the start and at the end, and what its episodes earned.

import { useData, LIVE_MS } from "rw/data";
import { count, figure, visible } from "rw/format";
import { html } from "rw/kit";
import { choose, link } from "rw/routes";
import { SortableTable } from "rw/sortable_table";
import { Change, Choice, Heading, IntervalBar, Notice, SearchField } from "rw/widgets";

const MOST = 500;

export function TasksPage({ run, query }) {
  const state = useData(`api/run/${encodeURIComponent(run.id)}/tasks`, run.state === "running" ? LIVE_MS : null);
  const rows = state.data?.rows ?? [];
  const words = (query.q ?? "").toLowerCase();
  const seen = rows.filter((row) => (!query.split || row.split === query.split) && row.task.toLowerCase().includes(words));
  return html`
    <${Heading} title=${`Tasks of ${run.name}`}>${state.data && html`<span class="quiet">${count(seen.length, "task")}</span>`}<//>
    <div class="bar">
      <${SearchField} label="Task" value=${query.q} onChange=${(q) => choose({ q })} />
      <${Choice} label="Split" value=${query.split} options=${state.data?.splits ?? []} onChange=${(split) => choose({ split })} />
      <span class="quiet small">Start and end: the first and the last evaluation that played the task, else the first and the last third of its episodes. Bars are 95% intervals.</span>
    </div>
    ${state.data && rows.length > 0 ? html`<${SortableTable} label="Tasks" rows=${seen.slice(0, MOST)} columns=${columns(run)} first="task"
      keyOf=${(row) => `${row.split} ${row.task}`} />` : html`<${Notice} state=${state} empty="No episode is stored yet." />`}
    ${seen.length > MOST && html`<p class="quiet">The first ${MOST} of ${seen.length} tasks are shown; search for the others.</p>`}`;
}

function columns(run) {
  const gain = (row) => (row.first && row.last ? row.last.value - row.first.value : null);
  return [
    { name: "task", title: "Task", value: (row) => row.task, cell: (row) => html`<a class="name foreign"
        href=${link("episodes", { run: run.id, task: row.task, split: row.split })}>${visible(row.task)}</a>` },
    { name: "split", title: "Split", value: (row) => row.split, cell: (row) => html`<span class="badge">${visible(row.split)}</span>` },
    { name: "first", title: "Success at the start", value: (row) => row.first?.value, cell: (row) => html`<${IntervalBar} given=${row.first} tone="before" />` },
    { name: "last", title: "Success at the end", value: (row) => row.last?.value, cell: (row) => html`<${IntervalBar} given=${row.last} />` },
    { name: "gain", title: "Change", number: true, value: gain, cell: (row) => html`<${Change} value=${gain(row)} />` },
    { name: "all", title: "Over the run", number: true, value: (row) => row.success?.value, cell: (row) => figure(row.success?.value), hint: "Success over all its episodes" },
    { name: "reward", title: "Mean reward", number: true, value: (row) => row.mean_reward, cell: (row) => figure(row.mean_reward) },
    { name: "turns", title: "Turns", number: true, value: (row) => row.mean_turns, cell: (row) => figure(row.mean_turns) },
    { name: "episodes", title: "Episodes", number: true, value: (row) => row.episodes, cell: (row) => figure(row.episodes) },
    { name: "faults", title: "Faults", number: true, value: (row) => row.faults, cell: (row) => figure(row.faults) },
  ];
}
