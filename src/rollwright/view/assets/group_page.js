// The episodes of one group side by side, turn beside turn: what made the difference.

import { isFrozen, load, useData } from "rw/data";
import { words } from "rw/episodes_page";
import { count, figure, visible } from "rw/format";
import { html, useEffect, useMemo, useState } from "rw/kit";
import { choose, link } from "rw/routes";
import { LENSES, lensChoices, reachOf, usableLens } from "rw/token_colours";
import { ActionTokens, Legend } from "rw/token_text";
import { Amount, sumOf } from "rw/turn_view";
import { Heading, Notice, Segments, Toggle, Verdict } from "rw/widgets";

const MOST = 16;

export function GroupPage({ run, query }) {
  const base = `api/run/${encodeURIComponent(run.id)}`;
  const state = useData(query.group ? `${base}/group/${encodeURIComponent(query.group)}` : null);
  const group = state.stale ? null : state.data;
  const episodes = useEpisodes(base, group);
  if (!query.group) return html`<p class="notice">Choose an episode <a href=${link("episodes", { run: run.id })}>in the list</a>; its page leads to its group.</p>`;
  if (!group) return html`<${Notice} state=${{ ...state, data: null }} />`;
  return html`<${Heading} title=${group.task}><span class="badge">${count(group.rows.length, "sibling")}</span>
      <span class="quiet">mean reward <b class="strong">${figure(group.mean_reward)}</b> · ${words(group.tag)} · seed ${visible(group.seed)}</span>
      <span class="quiet">${group.informative ? "Rewards differ, so the group teaches." : "All earned the same, so the group teaches nothing."}</span><//>
    ${episodes ? html`<${Siblings} run=${run} group=${group} episodes=${episodes} query=${query} />` : html`<p class="waiting">Loading the episodes…</p>`}
    ${group.rows.length > MOST && html`<p class="quiet">The first ${MOST} of ${group.rows.length} siblings are shown.</p>`}`;
}

// [rows] the whole episode of each row, null where it cannot be read; null while they are on their way.
function useEpisodes(base, group) {
  const [episodes, setEpisodes] = useState(null);
  useEffect(() => {
    let stopped = false;
    setEpisodes(null);
    if (!group) return undefined;
    const all = group.rows.slice(0, MOST).map((row) => load(`${base}/episode/${encodeURIComponent(row.key)}`).catch(() => null));
    Promise.all(all).then((found) => stopped || setEpisodes(found));
    return () => {
      stopped = true;
    };
  }, [group]);
  return episodes;
}

function Siblings({ run, group, episodes, query }) {
  const turns = useMemo(() => episodes.flatMap((episode) => episode?.turns ?? []), [episodes]);
  const choices = useMemo(() => lensChoices(turns), [turns]);
  const lens = usableLens(query.lens, choices);
  const reach = useMemo(() => reachOf(turns, lens), [turns, lens]);
  const marks = query.marks !== "0";
  const parting = firstDifference(episodes);
  const longest = Math.max(0, ...episodes.map((episode) => episode?.turns.length ?? 0));
  return html`<div class="lens-bar card"><${Segments} label="Colour tokens by" value=${lens} options=${choices} onChange=${(name) => choose({ lens: name })} />
      <${Toggle} label="Show whitespace" on=${marks} onChange=${(on) => choose({ marks: on ? "" : "0" })} />
      <${Legend} lens=${lens} reach=${reach} /></div>
    <div class="table-frame"><table class="siblings" aria-label="Siblings, turn beside turn">
      <thead><tr><th scope="col">Turn</th>${episodes.map((episode, index) => html`<${SiblingHead} key=${group.rows[index].key} run=${run}
        row=${group.rows[index]} episode=${episode} mean=${group.mean_reward} />`)}</tr></thead>
      <tbody>${Array.from({ length: longest }, (_, number) => html`<tr key=${number} class=${number === parting ? "parting" : ""}><th scope="row">${number}
          ${number === parting && html`<div class="quiet small" title="The first turn in which the siblings acted differently">they part</div>`}</th>
        ${episodes.map((episode, index) => html`<td key=${group.rows[index].key}>${episode?.turns[number] && html`<${SiblingTurn} run=${run} row=${group.rows[index]}
          turn=${episode.turns[number]} number=${number} vocabulary=${episode.vocabulary} lens=${lens} reach=${reach} marks=${marks} />`}</td>`)}</tr>`)}</tbody>
    </table></div>`;
}

function SiblingHead({ run, row, episode, mean }) {
  const advantage = episode ? meanOf(episode.turns.flatMap((turn) => LENSES.advantage.values(turn) ?? [])) : null;
  return html`<th scope="col"><div class="sibling-head"><a href=${link("episode", { run: run.id, key: row.key })}>Sibling ${row.member ?? ""}</a> <${Verdict} row=${row} />
    <div class="quiet" title="Reward, and how far it lies from the mean of the group">reward <b class="strong">${figure(row.reward)}</b>${mean !== null && mean !== undefined && html` <${Amount} value=${row.reward - mean} />`}</div>
    <div class="quiet">${count(row.turns, "turn")} · ${words(row.stop)}</div>
    ${advantage !== null && html`<div class="quiet">mean advantage ${figure(advantage)}</div>`}
    ${!episode && html`<div class="quiet">${isFrozen() ? "not in this report" : "cannot be read"}</div>`}</div></th>`;
}

function SiblingTurn({ run, row, turn, number, vocabulary, lens, reach, marks }) {
  const shown = turn.observed.map((message) => message.content).join("\n");
  return html`<div class="sibling-turn">
    <div class="sibling-line"><${ActionTokens} turn=${turn} vocabulary=${vocabulary} lens=${lens} reach=${reach} marks=${marks} />
      ${Object.keys(turn.rewards).length > 0 && html`<${Amount} value=${sumOf(turn.rewards)} />`}</div>
    <details class="quiet small"><summary>observation</summary>${shown && html`<pre class="foreign said">${visible(shown)}</pre>`}
      <a href=${link("episode", { run: run.id, key: row.key, turn: number })}>Open this turn</a></details></div>`;
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
