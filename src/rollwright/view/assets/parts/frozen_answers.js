// A frozen report holds the answers that a server would give. Lists that a server filters are filtered here.

const EQUAL = ["task", "split", "stop", "tag", "group", "origin", "start", "step"];
const SORTS = {
  old: (row) => [row.step ?? -1, row.key],
  reward: (row) => [row.reward],
  turns: (row) => [row.turns],
  seconds: (row) => [row.seconds],
};

/** The answer to a question out of the embedded ones. Throws where the report does not hold it. */
export function frozenAnswer(answers, path) {
  if (Object.hasOwn(answers, path)) return answers[path];
  const [place, query = ""] = path.split("?");
  // A comparison is named by its query alone: another pair must not be answered by the one that is there.
  if (place === "api/compare" || place === "api/diff" || !Object.hasOwn(answers, place)) {
    throw new Error("This report does not hold that part. `rollwright view` on the run folder shows everything.");
  }
  return place.endsWith("/episodes") ? filteredEpisodes(answers[place], new URLSearchParams(query)) : answers[place];
}

/** A list of episodes with the rows that pass the filters, one page of them. */
export function filteredEpisodes(list, query) {
  const rows = list.rows.filter((row) => passes(row, query));
  const sort = query.get("sort") ?? "new";
  const name = sort.replace(/^-/, "");
  const key = SORTS[name === "new" ? "old" : name] ?? SORTS.old;
  const sign = sort === "new" || sort.startsWith("-") ? -1 : 1;
  rows.sort((one, other) => sign * orderedLists(key(one), key(other)));
  const offset = Number(query.get("offset") ?? 0);
  const limit = Number(query.get("limit") ?? 100);
  return { ...list, matching: rows.length, offset, rows: rows.slice(offset, offset + limit), more: false };
}

/** Negative, 0 or positive: numbers by size, text by the alphabet, what is missing last. */
export function ordered(one, other) {
  const missing = (value) => value === null || value === undefined || value === "";
  if (missing(one) || missing(other)) return Number(missing(one)) - Number(missing(other));
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), undefined, { numeric: true });
}

function orderedLists(one, other) {
  return one.reduce((found, value, index) => found || ordered(value, other[index]), 0);
}

function passes(row, query) {
  if (EQUAL.some((name) => query.get(name) && String(row[name]) !== query.get(name))) return false;
  const success = { yes: true, no: false, none: null };
  if (query.get("success") && (row.success ?? null) !== success[query.get("success")]) return false;
  if (query.get("fault") && (query.get("fault") === "yes") !== row.is_fault) return false;
  if (query.get("channel") && !(row.channels ?? []).includes(query.get("channel"))) return false;
  if (query.get("min_reward") && row.reward < Number(query.get("min_reward"))) return false;
  if (query.get("max_reward") && row.reward > Number(query.get("max_reward"))) return false;
  const text = query.get("text")?.toLowerCase();
  return !text || `${row.task} ${row.id} ${row.fault} ${row.text ?? ""}`.toLowerCase().includes(text);
}
