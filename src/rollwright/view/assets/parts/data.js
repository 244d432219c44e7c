// Where data come from: the server that follows the run folders, or the JSON inside a frozen report.

import { useEffect, useRef, useState } from "rw/kit";
import { frozenAnswer } from "rw/frozen_answers";

const embedded = document.getElementById("frozen");
const answers = embedded ? JSON.parse(embedded.textContent).answers : null;

/** Milliseconds between two questions about a run that is still going. */
export const LIVE_MS = 2000;

/** Whether this page is a report: one file, without a server. */
export function isFrozen() {
  return answers !== null;
}

/** The path of a question with its parameters; empty ones are left out. */
export function pathOf(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** The answer to one question, as plain data. Throws an Error with a sentence for the reader. */
export async function load(path) {
  if (answers) return frozenAnswer(answers, path);
  let response;
  try {
    response = await fetch(path, { headers: { Accept: "application/json" } });
  } catch {
    throw new Error("The server does not answer. Start it again with `rollwright view`.");
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Error(answer?.error ?? `The server answered ${response.status} to ${path}.`);
  return answer;
}

/** The address of a picture of a run by its hash, or "" where a frozen report left it out. */
export function pictureAddress(run, hash) {
  const path = `api/run/${encodeURIComponent(run)}/attachment/${encodeURIComponent(hash)}`;
  if (!answers) return path;
  const given = answers[path];
  return typeof given === "string" && given.startsWith("data:image/") ? given : "";
}

/**
 * The answer to `path` as it stands: {data, error, loading, stale}. The last answer stays while the next one is on its
 * way, so that nothing jumps; `stale` says that it answers an earlier question. `every` asks again after so many
 * milliseconds while the page is seen; null asks once. A null path asks nothing.
 */
export function useData(path, every = null) {
  const [state, setState] = useState({ data: null, error: null, loading: true, path: null });
  const repeat = useRef(every);
  repeat.current = every;
  useEffect(() => {
    if (path === null) return undefined;
    let stopped = false;
    const ask = async () => {
      try {
        const data = await load(path);
        if (!stopped) setState({ data, error: null, loading: false, path });
      } catch (error) {
        // What was seen stays on the page while a server is away for a moment.
        const keep = (old) => ({ data: old.path === path ? old.data : null, error: error.message, loading: false, path });
        if (!stopped) setState(keep);
      }
    };
    const again = setInterval(() => {
      if (repeat.current !== null && !answers && !document.hidden) ask();
    }, LIVE_MS);
    setState((old) => ({ ...old, loading: true }));
    ask();
    return () => {
      stopped = true;
      clearInterval(again);
    };
  }, [path]);
  return { ...state, stale: state.path !== path };
}
