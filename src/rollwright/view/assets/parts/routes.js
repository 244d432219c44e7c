// The address after `#` says which page is open and with which choices, so that a link can be shared.

import { useLayoutEffect, useState } from "rw/kit";

/** {page, query} of an address such as `#/episodes?run=a`. Query values are plain text. */
export function parseRoute(hash) {
  const [page, query = ""] = hash.replace(/^#\/?/, "").split("?");
  return { page: page || "runs", query: Object.fromEntries(new URLSearchParams(query)) };
}

/** The address of a page; choices that are empty are left out. */
export function link(page, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `#/${page}?${new URLSearchParams(given)}` : `#/${page}`;
}

/** Change some choices of the open page. `replace` leaves no entry behind for the Back button. */
export function choose(changes, replace = true) {
  const { page, query } = parseRoute(location.hash);
  const target = link(page, { ...query, ...changes });
  if (replace) {
    history.replaceState(null, "", target);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = target;
  }
}

/** The open page and its choices; follows the address. */
export function useRoute() {
  const [route, setRoute] = useState(() => parseRoute(location.hash));
  useLayoutEffect(() => {
    const follow = () => setRoute(parseRoute(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return route;
}
