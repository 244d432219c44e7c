// A table whose columns sort when their heading is pressed.

import { ordered } from "rw/frozen_answers";
import { html, useMemo, useState } from "rw/kit";

/**
 * columns: {name, title, value(row) to sort by, cell(row) to show, number: aligned right, hint}.
 * keyOf(row) names a row; `first` is the column that sorts at the start, with "-" before it from large to small.
 */
export function SortableTable({ columns, rows, keyOf, first = "", label, onOpen = null, rowClass = null }) {
  const [sort, setSort] = useState(first);
  const name = sort.replace(/^-/, "");
  const sorted = useMemo(() => {
    const column = columns.find((each) => each.name === name);
    if (!column) return rows;
    const sign = sort.startsWith("-") ? -1 : 1;
    return [...rows].sort((one, other) => sign * ordered(column.value(one), column.value(other)));
  }, [rows, sort]);
  const press = (column) => setSort(sort === column.name ? `-${column.name}` : column.name);
  return html`<div class="table-frame"><table aria-label=${label}>
    <thead><tr>${columns.map((column) => html`<${HeadCell} key=${column.name} column=${column} sort=${sort} press=${press} />`)}</tr></thead>
    <tbody>${sorted.map((row) => html`<tr key=${keyOf(row)} class=${rowClass ? rowClass(row) : ""}
        onClick=${onOpen && ((event) => openRow(event, () => onOpen(row)))} data-opens=${onOpen ? "yes" : undefined}>
      ${columns.map((column) => html`<td key=${column.name} class=${column.number ? "number" : ""}>${column.cell(row)}</td>`)}
    </tr>`)}</tbody>
  </table></div>`;
}

function HeadCell({ column, sort, press }) {
  const state = sort === column.name ? "ascending" : sort === `-${column.name}` ? "descending" : undefined;
  const mark = { ascending: " ↑", descending: " ↓" }[state] ?? "";
  const title = html`${column.title}<span aria-hidden="true">${mark}</span>`;
  return html`<th scope="col" aria-sort=${state} class=${column.number ? "number" : ""} title=${column.hint ?? ""}>
    ${column.value ? html`<button type="button" onClick=${() => press(column)}>${title}</button>` : column.title}</th>`;
}

/** A press on a row opens it, except where it meets a link, a button or a field, or marks text. */
export function openRow(event, open) {
  if (event.target.closest("a, button, input, label, summary") || String(getSelection())) return;
  open();
}
