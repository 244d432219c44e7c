// Episodes beside each other, turn beside turn: siblings of a group, or the two sides of a comparison.

import { isFrozen } from "rw/data";
import { words } from "rw/episodes_page";
import { count, figure, visible } from "rw/format";
import { html, useMemo } from "rw/kit";
import { choose, link } from "rw/routes";
import { LENSES, lensChoices, reachOf, usableLens } from "rw/token_colours";
import { ActionTokens, Legend } from "rw/token_text";
import { Amount, sumOf } from "rw/turn_view";
import { Segments, Toggle, Verdict } from "rw/widgets";

/** columns: {title, run (its id), row, episode or null}; `mean` is the mean reward of the group, null where there is none. */
export function SideBySide({ columns, mean = null, query }) {
  const episodes = columns.map((column) => column.episode);
  const turns = useMemo(() => episodes.flatMap((episode) => episode?.turns ?? []), [columns]);
  const choices = useMemo(() => lensChoices(turns), [turns]);
  const lens = usableLens(query.lens, choices);
  const reach = useMemo(() => reachOf(turns, lens), [turns, lens]);
  const shown = { lens, reach, marks: query.marks !== "0" };
  const parting = firstDifference(episodes);
  const longest = Math.max(0, ...episodes.map((episode) => episode?.turns.length ?? 0));
  return html`<div class="lens-bar card"><${Segments} label="Colour tokens by" value=${lens} options=${choices} onChange=${(name) => choose({ lens: name })} />
      <${Toggle} label="Show whitespace" on=${shown.marks} onChange=${(on) => choose({ marks: on ? "" : "0" })} />
      <${Legend} lens=${lens} reach=${reach} /></div>
    <div class="table-frame"><table class="siblings" aria-label="Episodes, turn beside turn">
      <thead><tr><th scope="col">Turn</th>${columns.map((column) => html`<${ColumnHead} key=${`${column.run} ${column.row.key}`} column=${column} mean=${mean} />`)}</tr></thead>
      <tbody>${Array.from({ length: longest }, (_, number) => html`<tr key=${number} class=${number === parting ? "parting" : ""}><th scope="row">${number}
          ${number === parting && html`<div class="quiet small" title="The first turn in which they acted differently">they diverge</div>`}</th>
        ${columns.map((column) => html`<td key=${`${column.run} ${column.row.key}`}>${column.episode?.turns[number] && html`<${OneTurn} column=${column} number=${number} shown=${shown} />`}</td>`)}</tr>`)}</tbody>
    </table></div>`;
}

function ColumnHead({ column, mean }) {
  const { title, run, row, episode } = column;
  const advantage = episode ? meanOf(episode.turns.flatMap((turn) => LENSES.advantage.values(turn) ?? [])) : null;
  return html`<th scope="col"><div class="sibling-head"><a class="foreign" href=${link("episode", { run, key: row.key })}>${visible(title)}</a> <${Verdict} row=${row} />
    <div class="quiet" title="Reward, and how far it lies from the mean of the group">reward <b class="strong">${figure(row.reward)}</b>${mean !== null && html` <${Amount} value=${row.reward - mean} />`}</div>
    <div class="quiet">${count(row.turns, "turn")} · ${words(row.stop)}</div>
    ${advantage !== null && html`<div class="quiet">mean advantage ${figure(advantage)}</div>`}
    ${!episode && html`<div class="quiet">${isFrozen() ? "not in this report" : "cannot be read"}</div>`}</div></th>`;
}

function OneTurn({ column, number, shown }) {
  const turn = column.episode.turns[number];
  const seen = turn.observed.map((message) => message.content).join("\n");
  return html`<div class="sibling-turn">
    <div class="sibling-line"><${ActionTokens} turn=${turn} vocabulary=${column.episode.vocabulary} lens=${shown.lens} reach=${shown.reach} marks=${shown.marks} />
      ${Object.keys(turn.rewards).length > 0 && html`<${Amount} value=${sumOf(turn.rewards)} />`}</div>
    <details class="quiet small"><summary>observation</summary>${seen && html`<pre class="foreign said">${visible(seen)}</pre>`}
      <a href=${link("episode", { run: column.run, key: column.row.key, turn: number })}>Open this turn</a></details></div>`;
}

/** The number of the first turn in which not all episodes did the same; -1 where they never part. */
export function firstDifference(episodes) {
  const texts = episodes.filter(Boolean).map((episode) => episode.turns.map((turn) => turn.text));
  const longest = Math.max(0, ...texts.map((each) => each.length));
  return Array.from({ length: longest }, (_, number) => new Set(texts.map((each) => each[number])).size > 1).indexOf(true);
}

function meanOf(values) {
  const known = values.filter((value) => Number.isFinite(value));
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}
