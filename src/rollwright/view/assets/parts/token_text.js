// Exact tokens as they were read and written, coloured by what the update did with them.

import { figure, visible, visibleToken } from "rw/format";
import { html, useMemo, useState } from "rw/kit";
import { LENSES, tokenColour } from "rw/token_colours";

const MOST = 6000;

/** The text of a token id: its piece where the tokenizer is known, else the id itself. */
export function pieceOf(vocabulary, id) {
  const entry = vocabulary && Object.hasOwn(vocabulary, id) ? vocabulary[id] : null;
  return entry ? { text: entry.text, special: Boolean(entry.special) } : { text: `⟨${id}⟩`, special: true };
}

/** Tokens of a prompt: no colours, special tokens marked, at most the last few thousand. */
export function PromptTokens({ ids, vocabulary, marks }) {
  const first = Math.max(0, ids.length - MOST);
  return html`<pre class="tokens prompt foreign">${first > 0 && html`<i class="quiet">${first} earlier tokens are left out here${"\n"}</i>`}
    ${ids.slice(first).map((id, index) => html`<${Token} key=${index} piece=${pieceOf(vocabulary, id)} marks=${marks} title=${`id ${id}`}
      last=${first + index === ids.length - 1} />`)}</pre>`;
}

/**
 * Tokens of an action, coloured by a lens. One is chosen by the mouse or by the arrow keys; `onToken` is told
 * {turn, index} or null.
 */
export function ActionTokens({ turn, vocabulary, lens, reach, marks, onToken, chosen = null }) {
  const values = useMemo(() => LENSES[lens].values(turn) ?? [], [turn, lens]);
  const writers = useMemo(() => writersOf(turn), [turn]);
  const move = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by || !onToken) return;
    event.preventDefault();
    event.stopPropagation();
    onToken({ turn, index: Math.min(turn.action.length - 1, Math.max(0, (chosen ?? -1) + by)) });
  };
  const point = (event) => {
    const index = event.target.dataset?.token;
    if (onToken && index !== undefined) onToken({ turn, index: Number(index) });
  };
  return html`<pre class="tokens action foreign" tabindex=${onToken ? 0 : undefined} role="group" aria-label=${`Tokens of the action of turn ${turn.index}`}
      onMouseOver=${point} onClick=${point} onKeyDown=${move} onFocus=${() => onToken && chosen === null && turn.action.length && onToken({ turn, index: 0 })}>
    ${turn.action.map((id, index) => html`<${Token} key=${index} piece=${pieceOf(vocabulary, id)} marks=${marks} index=${index} chosen=${index === chosen}
      colour=${tokenColour(lens, values[index], reach)} foreign=${writers[index] !== "policy"} />`)}
    ${!turn.action.length && html`<i class="quiet">no tokens</i>`}</pre>`;
}

function Token({ piece, marks, index, colour = "", chosen = false, foreign = false, title, last = false }) {
  const text = marks ? visibleToken(piece.text) : visible(piece.text);
  const kind = `${piece.special ? "special" : ""} ${chosen ? "chosen" : ""} ${foreign ? "forced" : ""} ${colour ? "lit" : ""}`;
  // A sign for a line break stands before the break itself, so that lines stay lines; the last one would add an empty line.
  const shown = marks && piece.text.endsWith("\n") && !last ? `${text}\n` : text;
  return html`<span class=${`tok ${kind}`} data-token=${index} title=${title} style=${colour ? { background: colour } : undefined}>${shown || "∅"}</span>`;
}

function writersOf(turn) {
  const writers = Array(turn.action.length).fill("policy");
  for (const [producer, start, end] of turn.producers ?? []) writers.fill(producer, start, end);
  return writers;
}

/** Everything that is known of one action token, in one line that never changes its height. */
export function TokenFacts({ token, vocabulary }) {
  if (!token) return html`<p class="token-facts quiet">Point at a token of an action, or move with the arrow keys, to see its values.</p>`;
  const { turn, index } = token;
  const log = turn.log ?? {};
  const facts = [
    ["token", JSON.stringify(visible(pieceOf(vocabulary, turn.action[index]).text))],
    ["id", turn.action[index]],
    ["place", `turn ${turn.index}, ${index + 1} of ${turn.action.length}`],
    ["log-prob", figure(turn.logprobs?.[index])],
    ["advantage", log.advantages && figure(log.advantages[index])],
    ["learner − engine", log.diffs && figure(log.diffs[index])],
    ["entropy", log.entropies && figure(log.entropies[index])],
    ["in the loss", log.masks ? (log.masks[index] ? "yes" : "no") : null],
    ["weight", log.weights && figure(log.weights[index])],
    ["value", log.values && figure(log.values[index])],
    ["return", log.returns && figure(log.returns[index])],
    ["reward", figure(turn.token_rewards?.[index])],
    ...Object.entries(turn.values ?? {}).map(([name, values]) => [`value ${visible(name)}`, figure(values[index])]),
    ["written by", writersOf(turn)[index] === "policy" ? null : visible(writersOf(turn)[index])],
  ];
  return html`<dl class="token-facts">${facts.filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd class="foreign">${value}</dd></div>`)}</dl>`;
}

/** The scale of a lens: its colours with their values, and what it says. */
export function Legend({ lens, reach }) {
  const { scale, explain } = LENSES[lens];
  const ends = { signed: [figure(-reach), "0", `+${figure(reach)}`], amount: ["0", figure(reach)], switch: ["not in the loss", "in the loss"], none: [] }[scale];
  const swatch = { signed: [-1, -0.5, 0, 0.5, 1], amount: [0, 0.25, 0.5, 0.75, 1], switch: [0, 1], none: [] }[scale];
  return html`<span class="spring"></span><div class="legend"><span class="swatches" aria-hidden="true">${swatch.map((part) => html`<i
      style=${{ background: tokenColour(lens, scale === "switch" ? part : part * reach, reach) || "transparent" }}></i>`)}</span>
    <span class="ends">${ends.map((end) => html`<b>${end}</b>`)}</span></div>
    <p class="quiet small">${explain}</p>`;
}
