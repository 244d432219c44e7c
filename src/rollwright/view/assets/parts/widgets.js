// Small parts that several pages share: badges, sparklines, notices, choices, intervals drawn as bars.

import { ago, count, share, signed, visible } from "rw/format";
import { html, useEffect, useState } from "rw/kit";

const STATES = {
  running: "is running",
  finished: "has finished",
  stopped: "was stopped before its last step",
  ill: "ended with an error",
};

/** The state of a run as a coloured word. */
export function StateBadge({ run }) {
  const why = run.why ? `: ${visible(run.why)}` : "";
  return html`<span class="badge ${run.state in STATES ? run.state : ""}" title=${`This run ${STATES[run.state] ?? run.state}${why}`}>
    ${run.state}</span>`;
}

/** The verdict of an episode: success, failure, a fault, or none. */
export function Verdict({ row }) {
  if (row.is_fault || row.fault) return html`<span class="badge ill" title=${visible(row.fault || row.stop)}>fault</span>`;
  if (row.success === true) return html`<span class="badge won">success</span>`;
  if (row.success === false) return html`<span class="badge lost">failure</span>`;
  return html`<span class="badge">no verdict</span>`;
}

/** A small curve without axes. `values`: numbers or null; the last one is marked. */
export function Sparkline({ values, label, width = 132, height = 28 }) {
  const known = (values ?? []).map((value, index) => [index, value]).filter(([, value]) => Number.isFinite(value));
  if (known.length < 2) return html`<svg class="spark" width=${width} height=${height} role="img" aria-label="no curve yet"></svg>`;
  const low = Math.min(...known.map(([, value]) => value));
  const spread = Math.max(...known.map(([, value]) => value)) - low || 1;
  const place = ([index, value]) => [
    (3 + (index / (values.length - 1)) * (width - 6)).toFixed(1),
    (height - 4 - ((value - low) / spread) * (height - 8)).toFixed(1),
  ];
  const [x, y] = place(known[known.length - 1]);
  return html`<svg class="spark" width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label=${label}>
    <polyline points=${known.map((point) => place(point).join(",")).join(" ")} />
    <circle cx=${x} cy=${y} r="2.5" />
  </svg>`;
}

/** A change with its sign, green where more is better and there is more. */
export function Change({ value }) {
  if (value === null || value === undefined) return null;
  return html`<span class="change ${value > 0.005 ? "up" : value < -0.005 ? "down" : ""}">${signed(value)}</span>`;
}

/** An estimate of 0 to 1 with its interval as a bar. */
export function IntervalBar({ given, tone = "" }) {
  if (!given || given.value === null || given.value === undefined) return html`<span class="quiet">–</span>`;
  const low = Math.max(0, given.low ?? given.value);
  const high = Math.min(1, given.high ?? given.value);
  return html`<span class="interval ${tone}" title=${`95% interval ${share(low)} to ${share(high)}`}>
    <b>${share(given.value)}</b>
    <svg width="92" height="14" role="img" aria-label=${`interval ${share(low)} to ${share(high)}`}>
      <rect class="rail" x="0" y="6" width="92" height="2" rx="1" />
      <rect class="range" x=${low * 92} y="4" width=${Math.max(1, (high - low) * 92)} height="6" rx="3" />
      <circle cx=${Math.min(89, Math.max(3, given.value * 92))} cy="7" r="3" />
    </svg>
  </span>`;
}

/** What a page shows while an answer is on its way, or instead of one. */
export function Notice({ state, empty = null }) {
  if (state.error && !state.data) return html`<p class="notice error" role="alert">${visible(state.error)}</p>`;
  if (!state.data) return html`<p class="waiting">Loading…</p>`;
  return empty ? html`<p class="notice">${empty}</p>` : null;
}

/** A labelled choice. `options`: texts, or [value, shown] pairs; "" is offered as `any`. */
export function Choice({ label, value, options, onChange, any = "any" }) {
  const pairs = options.map((option) => (Array.isArray(option) ? option : [option, option]));
  // What an address names stays visible as the choice, although the run offers it no longer.
  if (value && !pairs.some(([offered]) => String(offered) === value)) pairs.push([value, value]);
  return html`<label class="choice"><span>${label}</span>
    <select value=${value ?? ""} aria-label=${label || any} onChange=${(event) => onChange(event.currentTarget.value)}>
      ${any !== null && html`<option value="">${any}</option>`}
      ${pairs.map(([offered, shown]) => html`<option key=${offered} value=${offered}>${visible(shown)}</option>`)}
    </select></label>`;
}

/** A field for words to look for; tells its new text a moment after the last key. */
export function SearchField({ label, value, onChange, placeholder = "" }) {
  const [text, setText] = useState(value ?? "");
  useEffect(() => setText(value ?? ""), [value]);
  useEffect(() => {
    if (text === (value ?? "")) return undefined;
    const timer = setTimeout(() => onChange(text), 250);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<label class="choice"><span>${label}</span>
    <input type="search" value=${text} placeholder=${placeholder} spellcheck="false"
      onInput=${(event) => setText(event.currentTarget.value)} /></label>`;
}

/** A switch with its label. */
export function Toggle({ label, on, onChange }) {
  return html`<label class="toggle"><input type="checkbox" checked=${on}
    onChange=${(event) => onChange(event.currentTarget.checked)} />${label}</label>`;
}

/** A row of buttons of which one is chosen. `options`: [value, shown, why it is not offered or ""]. */
export function Segments({ label, value, options, onChange }) {
  return html`<div class="segments" role="group" aria-label=${label}>
    ${options.map(([name, shown, missing]) => html`<button key=${name} type="button" aria-pressed=${name === value}
      disabled=${Boolean(missing)} title=${missing || shown} onClick=${() => onChange(name)}>${shown}</button>`)}
  </div>`;
}

/** `1–100 of 10,000` with buttons for the pages before and after. */
export function Pager({ offset, limit, total, onChange }) {
  const last = Math.min(offset + limit, total);
  return html`<nav class="pager" aria-label="Pages of the list">
    <span>${total === 0 ? "none" : `${(offset + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ${total.toLocaleString("en")}`}</span>
    <button type="button" disabled=${offset === 0} onClick=${() => onChange(Math.max(0, offset - limit))}>← Previous</button>
    <button type="button" disabled=${last >= total} onClick=${() => onChange(offset + limit)}>Next →</button>
  </nav>`;
}

/** When a run last wrote, kept current. */
export function Updated({ moment }) {
  return html`<time class="quiet" title=${moment ? new Date(moment * 1000).toLocaleString() : ""}>${ago(moment)}</time>`;
}

/** The heading of a page, with what belongs beside it. */
export function Heading({ title, children }) {
  useEffect(() => {
    document.title = `${title} · Rollwright`;
  }, [title]);
  return html`<header class="heading"><h1>${visible(title)}</h1>${children}</header>`;
}

/** Warnings that came with an answer. */
export function Notes({ notes }) {
  if (!notes?.length) return null;
  return html`<details class="notes" open=${notes.length <= 3}><summary>${count(notes.length, "note")}</summary>
    <ul>${notes.map((note) => html`<li>${visible(note)}</li>`)}</ul></details>`;
}
