// The libraries under one name each, for all modules.
// `html` builds elements from a template; a ${value} in it becomes a text node or a property, never markup.

import { h, render, Fragment } from "preact";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import htm from "htm";

export { Fragment, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState };
export const html = htm.bind(h);

/** Draw a component into an element of the page, in place of what is there. */
export function draw(component, element) {
  element.replaceChildren();
  render(component, element);
}
