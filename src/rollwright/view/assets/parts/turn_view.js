// One turn: what the policy saw, the prompt and the action as exact tokens, and what it earned.

import { pictureAddress } from "rw/data";
import { count, figure, signed, visible } from "rw/format";
import { html, useMemo, useState } from "rw/kit";
import { ActionTokens, PromptTokens } from "rw/token_text";

/** settings: {run, vocabulary, lens, reach, marks, token, onToken}. `turns` are all of the episode. */
export function TurnView({ turns, number, settings }) {
  const turn = turns[number];
  const chosen = settings.token?.turn === turn ? settings.token.index : null;
  return html`<article class="turn" aria-label=${`Turn ${turn.index}`}>
    <${Observed} turn=${turn} run=${settings.run} />
    <${Prompt} turns=${turns} number=${number} settings=${settings} />
    <section><h3>Action <span class="quiet">${count(turn.action.length, "token")}${turn.finish === "length" ? ", cut at its limit" : ""}</span></h3>
      <${ActionTokens} turn=${turn} vocabulary=${settings.vocabulary} lens=${settings.lens} reach=${settings.reach} marks=${settings.marks}
        onToken=${settings.onToken} chosen=${chosen} />
      ${turn.acted !== null && turn.acted !== undefined && turn.acted !== turn.text && html`<p class="small quiet">The world was given:</p>
        <pre class="foreign said">${visible(turn.acted)}</pre>`}</section>
    <${Earned} turn=${turn} />
  </article>`;
}

/** What the world showed before the turn: pictures and messages. */
export function Observed({ turn, run }) {
  const hashes = [...new Set([...(turn.attachments ?? []).map((each) => each.sha256), ...turn.observed.flatMap((message) => message.pictures)])];
  return html`<section><h3>Observation</h3>
    <div class="seen">${hashes.length > 0 && html`<div class="pictures">${hashes.map((hash) => html`<${Picture} key=${hash} run=${run} hash=${hash} />`)}</div>`}
    <div class="messages">${turn.observed.map((message, index) => html`<div class="message" key=${index}><span class="role">${message.role}</span>
      <pre class="foreign said">${visible(message.content)}</pre></div>`)}</div></div>
    ${!turn.observed.length && !hashes.length && html`<p class="quiet">Nothing new was shown.</p>`}</section>`;
}

function Picture({ run, hash }) {
  const [large, setLarge] = useState(false);
  const address = pictureAddress(run, hash);
  if (!address) return html`<p class="quiet">A picture is left out here for its size.</p>`;
  return html`<button type="button" class=${`picture ${large ? "large" : ""}`} aria-label=${large ? "Smaller" : "Larger"} onClick=${() => setLarge(!large)}>
    <img src=${address} alt="What the world showed before this turn" loading="lazy" /></button>`;
}

/** The whole prompt of a turn: what the turn before had read and written as far as it is shared, then what is new. */
export function promptOf(turns, number) {
  let known = [];
  for (let index = 0; index <= number; index += 1) {
    const prompt = [...known.slice(0, turns[index].shared), ...turns[index].prompt];
    if (index === number) return prompt;
    known = [...prompt, ...turns[index].action];
  }
  return known;
}

function Prompt({ turns, number, settings }) {
  const [chosen, setWhole] = useState(false);
  const turn = turns[number];
  // A prompt that goes on from the one before shows what is new; one that only begins like it shows all.
  const grows = turn.shared >= (turn.shared + turn.prompt.length) / 2;
  const whole = chosen || !grows;
  const ids = useMemo(() => (whole ? promptOf(turns, number) : turn.prompt), [turns, number, whole]);
  const length = turn.shared + turn.prompt.length;
  return html`<section><h3>Prompt <span class="quiet">${count(length, "token")}${grows ? `, ${turn.shared.toLocaleString("en")} of them as before` : ""}</span>
      ${grows && html`<button type="button" class="small" aria-pressed=${whole} onClick=${() => setWhole(!chosen)}>${whole ? "Only new tokens" : "Whole prompt"}</button>`}</h3>
    <${PromptTokens} ids=${ids} vocabulary=${settings.vocabulary} marks=${settings.marks} /></section>`;
}

/** Rewards by channel, costs, and how the turn ended. */
export function Earned({ turn }) {
  const rewards = Object.entries(turn.rewards);
  const costs = Object.entries(turn.costs ?? {});
  const values = Object.entries(turn.values ?? {}).filter(([, list]) => list.length);
  const ends = [turn.terminated && "the task ended here", turn.truncated && "a limit ended the episode here"].filter(Boolean);
  if (!rewards.length && !costs.length && !ends.length && !values.length) return null;
  return html`<section class="earned">
    ${rewards.map(([name, value]) => html`<span class="reward" key=${name}><span class="foreign">${visible(name)}</span> <${Amount} value=${value} /></span>`)}
    ${costs.map(([name, value]) => html`<span class="reward" key=${name}><span class="foreign">cost ${visible(name)}</span> <b>${figure(value)}</b></span>`)}
    ${ends.map((end) => html`<span class="quiet" key=${end}>${end}</span>`)}</section>`;
}

/** A reward with its sign and colour. */
export function Amount({ value }) {
  const digits = Number.isInteger(value) ? 0 : 2;
  return html`<b class=${`change ${value > 0 ? "up" : value < 0 ? "down" : ""}`}>${value === 0 ? "0" : signed(value, digits)}</b>`;
}

/** The sum of what a turn earned. */
export function sumOf(rewards) {
  return Object.values(rewards).reduce((sum, value) => sum + value, 0);
}
