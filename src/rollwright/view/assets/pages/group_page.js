// The episodes of one group side by side: what made the difference. And the two sides of one pair of a comparison.

import { load, useData } from "rw/data";
import { words } from "rw/episodes_page";
import { count, figure, visible } from "rw/format";
import { html, useEffect, useMemo, useState } from "rw/kit";
import { link } from "rw/routes";
import { SideBySide } from "rw/side_by_side";
import { Heading, Notice } from "rw/widgets";

const MOST = 16;

export function GroupPage({ run, query }) {
  const state = useData(query.group ? `api/run/${encodeURIComponent(run.id)}/group/${encodeURIComponent(query.group)}` : null);
  const group = state.stale ? null : state.data;
  const places = useMemo(() => (group?.rows ?? []).slice(0, MOST).map((row) => ({ run: run.id, key: row.key })), [group]);
  const episodes = useEpisodes(places);
  if (!query.group) return html`<p class="notice">Choose an episode <a href=${link("episodes", { run: run.id })}>in the list</a>; its page leads to its group.</p>`;
  if (!group) return html`<${Notice} state=${{ ...state, data: null }} />`;
  const columns = episodes?.map((episode, index) => ({ title: `Sibling ${group.rows[index].member ?? index}`, run: run.id, row: group.rows[index], episode }));
  return html`<${Heading} title=${group.task}><span class="badge">${count(group.rows.length, "sibling")}</span>
      <span class="quiet">mean reward <b class="strong">${figure(group.mean_reward)}</b> · ${words(group.tag)} · seed ${visible(group.seed)}</span>
      <span class="quiet">${group.informative ? "Rewards differ, so the group teaches." : "All earned the same, so the group teaches nothing."}</span><//>
    ${columns ? html`<${SideBySide} columns=${columns} mean=${group.mean_reward ?? null} query=${query} />` : html`<p class="waiting">Loading the episodes…</p>`}
    ${group.rows.length > MOST && html`<p class="quiet">The first ${MOST} of ${group.rows.length} siblings are shown.</p>`}`;
}

/** The same start played by A and by B. `query.a` and `query.b` are RUN/KEY. */
export function PairPage({ runs, query }) {
  const places = useMemo(() => [query.a, query.b].map(placeOf), [query.a, query.b]);
  const episodes = useEpisodes(places);
  if (places.some((place) => place === null)) return html`<p class="notice">Choose a pair <a href=${link("compare")}>in a comparison</a>.</p>`;
  if (!episodes) return html`<p class="waiting">Loading the episodes…</p>`;
  const known = episodes.find(Boolean);
  if (!known) return html`<p class="notice error" role="alert">Neither episode can be read.</p>`;
  const nameOf = (id) => runs.find((each) => each.id === id)?.name ?? id;
  const columns = episodes.map((episode, index) => ({
    title: `${"AB"[index]}: ${nameOf(places[index].run)}${episode ? `, ${episode.row.tag}` : ""}`,
    run: places[index].run,
    row: episode?.row ?? { key: places[index].key, turns: 0, reward: null, stop: "" },
    episode,
  }));
  return html`<${Heading} title=${known.row.task}><span class="quiet">seed ${visible(known.row.seed)}, played by both</span><//>
    <${SideBySide} columns=${columns} query=${query} />`;
}

function placeOf(text) {
  const parts = (text ?? "").split("/");
  return parts.length === 2 && parts.every(Boolean) ? { run: parts[0], key: parts[1] } : null;
}

// [places] the whole episode of each place, null where it cannot be read; null while they are on their way.
function useEpisodes(places) {
  const [found, setFound] = useState({ places: null, episodes: null });
  useEffect(() => {
    let stopped = false;
    const one = (place) => load(`api/run/${encodeURIComponent(place.run)}/episode/${encodeURIComponent(place.key)}`).catch(() => null);
    if (places.length && places.every(Boolean)) Promise.all(places.map(one)).then((episodes) => stopped || setFound({ places, episodes }));
    return () => {
      stopped = true;
    };
  }, [places]);
  return found.places === places ? found.episodes : null;
}
