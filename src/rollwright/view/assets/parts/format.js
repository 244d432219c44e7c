// Numbers, times and foreign text as a reader wants to see them.

const MISSING = "–";

/** A number in at most four significant figures, without a tail of zeros. */
export function figure(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return MISSING;
  const size = Math.abs(value);
  return `${value < 0 ? "−" : ""}${withoutSign(size)}`;
}

function withoutSign(size) {
  if (size !== 0 && (size >= 1e6 || size < 1e-4)) return size.toExponential(2).replace("-", "−");
  if (Number.isInteger(size)) return size.toLocaleString("en");
  return String(Number(size.toPrecision(size >= 1000 ? 5 : 4)));
}

/** A share of 0 to 1 with two digits behind the point. */
export function share(value) {
  return value === null || value === undefined ? MISSING : value.toFixed(2);
}

/** A change with its sign; nothing where there is none to tell. */
export function signed(value, digits = 2) {
  if (value === null || value === undefined) return "";
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? `±${text}` : `${value > 0 ? "+" : "−"}${text}`;
}

/** Seconds as `42 s`, `3 min 5 s` or `2 h 4 min`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return MISSING;
  if (seconds < 10) return `${Number(seconds.toPrecision(2))} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** How long ago a moment (Unix seconds) was. */
export function ago(moment, now = Date.now() / 1000) {
  if (!moment) return MISSING;
  const passed = Math.max(0, now - moment);
  if (passed < 60) return "just now";
  if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
  if (passed < 86400) return `${Math.floor(passed / 3600)} h ago`;
  return new Date(moment * 1000).toISOString().slice(0, 10);
}

/** `3 turns`, `1 turn`. */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

// Characters that do not show, or that reorder their neighbours: controls, bidi marks and overrides, zero-width
// signs, line separators, byte order marks, tag characters. A log may hold any of them.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e007f}]/gu;

/** Foreign text whose hidden characters are spelt out; line breaks and tabs stay. */
export function visible(text) {
  return String(text ?? "").replace(HIDDEN, spelt);
}

/** The same for one token: line breaks, tabs and spaces show as signs too. */
export function visibleToken(text) {
  return visible(text).replaceAll(" ", "·").replaceAll("\t", "→").replaceAll("\n", "↵");
}

function spelt(character) {
  return `\\u{${character.codePointAt(0).toString(16)}}`;
}
