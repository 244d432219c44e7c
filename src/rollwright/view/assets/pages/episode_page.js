// One episode, turn by turn, with the keyboard or the mouse.

import { useData } from "rw/data";
import { words } from "rw/episodes_page";
import { count, duration, figure, visible } from "rw/format";
import { html, useEffect, useLayoutEffect, useMemo, useState } from "rw/kit";
import { choose, link } from "rw/routes";
import { lensChoices, reachOf, usableLens } from "rw/token_colours";
import { Legend, TokenFacts } from "rw/token_text";
import { Amount, TurnView, sumOf } from "rw/turn_view";
import { Heading, Notes, Notice, Segments, Toggle, Verdict } from "rw/widgets";

export function EpisodePage({ run, query }) {
  const state = useData(query.key ? `api/run/${encodeURIComponent(run.id)}/episode/${encodeURIComponent(query.key)}` : null);
  const [token, setToken] = useState(null);
  useEffect(() => setToken(null), [query.key]);
  const episode = state.stale ? null : state.data;
  const number = episode ? Math.min(episode.turns.length - 1, Math.max(0, Number(query.turn ?? 0) || 0)) : 0;
  useKeys(run, episode, number);
  if (!query.key) return html`<p class="notice">Choose an episode <a href=${link("episodes", { run: run.id })}>in the list</a>.</p>`;
  if (!episode) return html`<${Notice} state=${{ ...state, data: null }} /><p><a href=${link("episodes", { run: run.id })}>All episodes of ${visible(run.name)}</a></p>`;
  return html`<${Head} run=${run} episode=${episode} query=${query} />
    <${Facts} run=${run} episode=${episode} />
    ${episode.turns.length ? html`<${Turns} run=${run} episode=${episode} number=${number} query=${query} token=${token} setToken=${setToken} />`
      : html`<p class="notice">Nobody acted in this episode: ${words(episode.row.stop)}.</p>`}`;
}

// j and k, or the arrows, step through the turns; n and p through the episodes.
// A layout effect, so that the keys work from the moment at which the turn is seen.
function useKeys(run, episode, number) {
  useLayoutEffect(() => {
    if (!episode) return undefined;
    const press = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea")) return;
      const by = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 }[event.key];
      const other = { n: episode.next, p: episode.previous }[event.key];
      if (by) choose({ turn: Math.min(episode.turns.length - 1, Math.max(0, number + by)) });
      else if (other) choose({ key: other, turn: "" }, false);
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [run, episode, number]);
}

function Head({ run, episode, query }) {
  const { row } = episode;
  const to = (key) => link("episode", { run: run.id, key, lens: query.lens, marks: query.marks });
  return html`<${Heading} title=${row.task}><${Verdict} row=${row} />
    <span class="quiet">reward <b class="strong">${figure(row.reward)}</b> · ${[count(row.turns, "turn"), words(row.stop), row.step === null ? visible(row.tag) : `step ${row.step}`].filter(Boolean).join(" · ")}</span>
    <span class="spring"></span>
    ${row.group && html`<a class="button" href=${link("group", { run: run.id, group: row.group })}>Siblings side by side</a>`}
    ${episode.previous && html`<a class="button" href=${to(episode.previous)} title="Key p">← Previous</a>`}
    ${episode.next && html`<a class="button" href=${to(episode.next)} title="Key n">Next →</a>`}<//>`;
}

function Facts({ run, episode }) {
  const { row, score, branch } = episode;
  const facts = [
    ["seed", row.seed], ["split", row.split], ["played by", row.policy || row.origin], ["weights", row.version >= 0 ? `version ${row.version}` : null],
    ["temperature", row.temperature], ["time", duration(row.seconds)], ["retries", row.retries || null],
    ["score", score ? `${figure(score.value)} by ${score.verifier}` : null], ["episode", row.id],
  ];
  return html`${episode.fault && html`<p class="notice error foreign">${visible(episode.fault)}</p>`}
    <${Notes} notes=${episode.notes?.filter((note) => !note.startsWith("world "))} />
    ${score?.message && html`<p class="notice foreign">${visible(score.message)}</p>`}
    <dl class="facts">${facts.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => html`
      <div key=${name}><dt>${name}</dt><dd class="foreign">${visible(value)}</dd></div>`)}
      ${branch?.key && html`<div><dt>branched off</dt><dd><a href=${link("episode", { run: run.id, key: branch.key, turn: branch.turn })}>its parent, turn ${branch.turn}</a></dd></div>`}
      ${episode.world && html`<div><dt>world</dt><dd class="foreign">${visible(`${episode.world.name} ${episode.world.version}`)}</dd></div>`}</dl>`;
}

function Turns({ run, episode, number, query, token, setToken }) {
  const { turns, vocabulary } = episode;
  const choices = useMemo(() => lensChoices(turns), [turns]);
  const lens = usableLens(query.lens, choices);
  const reach = useMemo(() => reachOf(turns, lens), [turns, lens]);
  const marks = query.marks !== "0";
  return html`<div class="lens-bar card"><${Segments} label="Colour tokens by" value=${lens} options=${choices} onChange=${(name) => choose({ lens: name })} />
      <${Toggle} label="Show whitespace" on=${marks} onChange=${(on) => choose({ marks: on ? "" : "0" })} />
      <${Legend} lens=${lens} reach=${reach} />
      ${!vocabulary && html`<p class="small quiet">Tokens show as numbers${episode.tokenizer_note ? `: ${visible(episode.tokenizer_note)}` : ""}.</p>`}</div>
    <div class="episode">
      <${Rail} turns=${turns} number=${number} truncated=${episode.truncated} total=${episode.num_turns} />
      <div class="card"><${TurnHead} turns=${turns} number=${number} />
        <${TurnView} key=${number} turns=${turns} number=${number} settings=${{ run: run.id, vocabulary, lens, reach, marks, token, onToken: setToken }} />
        <${TokenFacts} token=${token?.turn === turns[number] ? token : null} vocabulary=${vocabulary} /></div>
    </div>`;
}

function TurnHead({ turns, number }) {
  const turn = turns[number];
  const kind = [turn.kind !== "act" && turn.kind, turn.attempt && `attempt ${turn.attempt}`].filter(Boolean).join(", ");
  return html`<header class="turn-head"><h2>Turn ${turn.index}${kind && html` <span class="badge foreign">${visible(kind)}</span>`}</h2>
    <span class="spring"></span>
    <button type="button" disabled=${number === 0} onClick=${() => choose({ turn: number - 1 })} title="Key k or left arrow">← Turn</button>
    <button type="button" disabled=${number === turns.length - 1} onClick=${() => choose({ turn: number + 1 })} title="Key j or right arrow">Turn →</button></header>`;
}

function Rail({ turns, number, truncated, total }) {
  return html`<nav class="rail card" aria-label="Turns"><ol>
    ${turns.map((turn, index) => html`<li key=${index}><button type="button" aria-current=${index === number ? "step" : undefined} onClick=${() => choose({ turn: index })}>
      <span class="quiet">${turn.index}</span><span class="foreign what">${visible(turn.text).slice(0, 80) || "(empty)"}</span>
      ${Object.keys(turn.rewards).length > 0 && html`<${Amount} value=${sumOf(turn.rewards)} />`}</button></li>`)}</ol>
    ${truncated && html`<p class="quiet small">The other ${total - turns.length} turns are left out: the episode is very long.</p>`}
    <p class="quiet small keys"><kbd>j</kbd> <kbd>k</kbd> turn · <kbd>n</kbd> <kbd>p</kbd> episode</p></nav>`;
}
