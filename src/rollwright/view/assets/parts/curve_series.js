// From the metrics of several runs to the columns of one chart. Pure functions: numbers in, numbers out.

/** Colours of runs that lie over each other: told apart by most colour-blind readers, on light and on dark paper. */
export const RUN_COLOURS = ["#3d6bea", "#e0812b", "#1f9d72", "#c64a8b", "#8a63d2", "#7a8b1f", "#1c9ac0", "#b5574a"];

/** Whether any number is in the list. */
export function hasNumbers(values) {
  return (values ?? []).some((value) => Number.isFinite(value));
}

/**
 * Exponential moving average without the start's bias (as Adam corrects its moments). Missing values stay missing.
 * `weight` in [0, 1) is what the past counts; 0 changes nothing.
 */
export function smoothed(values, weight) {
  let mean = 0;
  let mass = 0;
  return values.map((value) => {
    if (!Number.isFinite(value)) return null;
    mean = weight * mean + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return mean / mass;
  });
}

/** The names of the ends of a metric's interval: `eval/success_frac` has `eval/success_low` and `eval/success_high`. */
export function intervalNames(name) {
  const stem = name.replace(/_(frac|mean)$/, "");
  return [`${stem}_low`, `${stem}_high`];
}

/** Whether a metric is an end of another one's interval, and so needs no chart of its own. */
export function isIntervalEnd(name, names) {
  const stem = name.match(/^(.*)_(low|high)$/)?.[1];
  return stem !== undefined && (names.has(`${stem}_frac`) || names.has(`${stem}_mean`));
}

/**
 * The lines of one metric: per run that has it {label, colour, steps, values, low, high}; the reference comes last.
 * low and high are null where there is no interval.
 */
export function linesOf(name, runs, feeds, reference) {
  const lines = [];
  runs.forEach((run, index) => {
    const series = feeds[run.id]?.series ?? {};
    if (!hasNumbers(series[name])) return;
    const [low, high] = intervalNames(name).map((end) => (hasNumbers(series[end]) ? series[end] : null));
    lines.push({ label: run.name, colour: RUN_COLOURS[index % RUN_COLOURS.length], steps: feeds[run.id].steps, values: series[name],
      low: low && high ? low : null, high: low && high ? high : null, reference: false });
  });
  const curve = reference?.curves?.[name];
  if (curve && lines.length) lines.push(referenceLine(reference, curve, lastStepOf(runs, feeds)));
  return lines;
}

// The step at which the longest of the runs ends, or shall end.
function lastStepOf(runs, feeds) {
  return Math.max(...runs.map((run) => Math.max(run.steps ?? 0, feeds[run.id]?.steps.at(-1) ?? 0)));
}

// A reference may be longer than the runs: what lies behind their end would only press them together.
function referenceLine(reference, curve, last) {
  const length = curve.steps.filter((step) => step <= last).length;
  const part = (values) => values?.slice(0, length) ?? null;
  return { label: `${reference.name}, reference`, colour: "#8b94a3", steps: part(curve.steps), values: part(curve.mean),
    low: part(curve.low), high: part(curve.high), reference: true };
}

/**
 * The columns that a chart draws: `x` is every step of any line; of each line the raw values, the smoothed ones and
 * the ends of its interval, null where the line has no value at that step.
 */
export function columnsOf(lines, weight, logarithmic) {
  const x = [...new Set(lines.flatMap((line) => line.steps))].sort((one, other) => one - other);
  const place = new Map(x.map((step, index) => [step, index]));
  const spread = (steps, values) => {
    const column = Array(x.length).fill(null);
    steps.forEach((step, index) => {
      const value = values[index];
      if (Number.isFinite(value) && (!logarithmic || value > 0)) column[place.get(step)] = value;
    });
    return column;
  };
  const columns = lines.map((line) => ({
    raw: spread(line.steps, line.values),
    // A value with an interval is an estimate already: smoothing would move it out of its interval.
    shown: spread(line.steps, line.reference || line.low ? line.values : smoothed(line.values, weight)),
    low: line.low && spread(line.steps, line.low),
    high: line.high && spread(line.steps, line.high),
  }));
  return { x, columns };
}
