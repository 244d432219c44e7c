// What a token can be coloured by, and the colour that a value gets. Pure functions.

/**
 * name: {title, values(turn) -> one number or null per action token, scale, explain}. Scales: "signed" runs from
 * red below 0 to blue above 0, "amount" from nothing to full, "switch" is on or off.
 */
export const LENSES = {
  none: { title: "Plain", scale: "none", explain: "No colours.", values: () => null },
  advantage: {
    title: "Advantage", scale: "signed", values: (turn) => turn.log?.advantages,
    explain: "The update pushed blue tokens up and red ones down, the stronger the colour the more.",
  },
  diff: {
    title: "Log-prob difference", scale: "signed", values: (turn) => turn.log?.diffs,
    explain: "Log-prob of the learner minus that of the engine which sampled, in nats. Far from 0: engine and learner disagree, or the policy has moved.",
  },
  entropy: {
    title: "Entropy", scale: "amount", values: (turn) => turn.log?.entropies,
    explain: "Entropy of the policy's distribution at the token, in nats: where it could have gone another way.",
  },
  mask: {
    title: "Mask", scale: "switch", values: (turn) => turn.log?.masks?.map((counted) => counted ?? 0) ?? turn.mask,
    explain: "Marked tokens count in the loss. Where the update left no log: the tokens that somebody chose, not a fixed text.",
  },
  reward: {
    title: "Reward", scale: "signed", values: (turn) => turn.token_rewards,
    explain: "What the token earned. A reward that names no place lies on the last token of its action.",
  },
  value: {
    title: "Value", scale: "signed", values: (turn) => turn.log?.values, rare: true,
    explain: "What the token critic expected to earn from here on.",
  },
  return: {
    title: "Return", scale: "signed", values: (turn) => turn.log?.returns, rare: true,
    explain: "What the token critic was fitted to at this token.",
  },
  surprise: {
    title: "Surprise", scale: "amount", values: (turn) => turn.logprobs?.map((value) => (value === null ? null : Math.max(0, -value))),
    explain: "Minus the log-prob with which the token was sampled, in nats. 0: it was certain.",
  },
};

/** What turns can be coloured by, and why not: [name, title, reason or ""]. */
export function lensChoices(turns) {
  const given = ({ values }) => turns.some((turn) => values(turn)?.some((value) => value !== null));
  // What only some methods compute is offered where it is there; what all do is always named, so that it can be missed.
  return Object.entries(LENSES).filter(([, lens]) => !lens.rare || given(lens)).map(([name, lens]) => {
    const missing = name !== "none" && !given(lens);
    return [name, lens.title, missing ? `${lens.title} was not logged for this episode (see the setting run.token_log)` : ""];
  });
}

/** The lens that the address names where the turns have it; else advantage, else surprise, else none. */
export function usableLens(wanted, choices) {
  const usable = new Set(choices.filter(([, , missing]) => !missing).map(([name]) => name));
  return [wanted, "advantage", "surprise"].find((name) => usable.has(name)) ?? "none";
}

/** The largest absolute value of a lens over turns, at least a hair above 0: the end of its scale. */
export function reachOf(turns, lens) {
  let reach = 0;
  for (const turn of turns) {
    for (const value of LENSES[lens].values(turn) ?? []) if (value !== null) reach = Math.max(reach, Math.abs(value));
  }
  return reach || 1;
}

/** The background of a token, or "" for none. Half-transparent, so that text is read on light and dark paper. */
export function tokenColour(lens, value, reach) {
  const { scale } = LENSES[lens];
  if (scale === "none" || value === null || value === undefined) return "";
  const part = Math.min(1, Math.abs(value) / reach);
  if (scale === "switch") return value ? "rgb(38 160 105 / 0.32)" : "rgb(128 136 150 / 0.22)";
  if (part < 0.005) return "";
  const strength = (0.08 + 0.5 * part).toFixed(3);
  if (scale === "amount") return `rgb(222 140 30 / ${strength})`;
  return value > 0 ? `rgb(56 112 236 / ${strength})` : `rgb(222 62 54 / ${strength})`;
}
