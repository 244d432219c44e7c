// The metrics of the chosen runs, kept up to date while a run is going: only new steps are asked for.

import { LIVE_MS, isFrozen, load, pathOf } from "rw/data";
import { useEffect, useRef, useState } from "rw/kit";

/**
 * {id: {epoch, steps, series, names}} of the runs, and what went wrong: {feeds, error, loading}. It asks again and
 * again while one of the runs is going.
 */
export function useMetrics(runs) {
  const ids = runs.map((run) => run.id);
  const live = runs.some((run) => run.state === "running") && !isFrozen();
  const [state, setState] = useState({ feeds: {}, error: null, loading: true });
  const feeds = useRef({});
  useEffect(() => {
    let stopped = false;
    const ask = async () => {
      let error = null;
      for (const id of ids) {
        try {
          feeds.current = { ...feeds.current, [id]: await newest(id, feeds.current[id]) };
        } catch (problem) {
          error = problem.message;
        }
      }
      if (!stopped) setState({ feeds: feeds.current, error, loading: false });
    };
    ask();
    const timer = live ? setInterval(() => document.hidden || ask(), LIVE_MS) : null;
    return () => {
      stopped = true;
      clearInterval(timer);
    };
  }, [ids.join(","), live]);
  return state;
}

async function newest(id, known) {
  const path = `api/run/${encodeURIComponent(id)}/metrics`;
  if (!known?.steps.length) return load(path);
  if (isFrozen()) return known;
  const more = await load(pathOf(path, { since: known.steps.at(-1) }));
  // A run that was resumed at an earlier step has rewound its file: nothing that is known still holds.
  return more.epoch === known.epoch ? joined(known, more) : load(path);
}

/** Known metrics with newer ones behind them; a step that both have is taken from the newer. */
export function joined(known, more) {
  if (!more.steps.length) return known;
  const keep = known.steps.findLastIndex((step) => step < more.steps[0]) + 1;
  if (more.steps.length === 1 && keep === known.steps.length - 1 && sameLast(known, more)) return known;
  const steps = [...known.steps.slice(0, keep), ...more.steps];
  const names = [...new Set([...Object.keys(known.series), ...Object.keys(more.series)])];
  const part = (values, length) => values ?? Array(length).fill(null);
  const series = Object.fromEntries(names.map((name) => [name, [
    ...part(known.series[name], known.steps.length).slice(0, keep),
    ...part(more.series[name], more.steps.length),
  ]]));
  return { ...more, steps, series };
}

function sameLast(known, more) {
  return Object.entries(more.series).every(([name, [value]]) => (known.series[name]?.at(-1) ?? null) === (value ?? null));
}
