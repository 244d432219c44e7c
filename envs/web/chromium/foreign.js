// Runs in a world of our own inside a page of somebody else: the page's script can neither see nor change what is here.
// Only handlers live in the page's own world; ears.js there answers by cancelling our question.
(() => {
  "use strict";
  if (Object.hasOwn(window, "__rwEars")) return;
  const QUESTION = "__RW_QUESTION__";
  const asks = (element, what) => !element.dispatchEvent(new Event(QUESTION + what, { cancelable: true, composed: true }));
  window.__rwEars = (element) => asks(element, "delegated");
  const hears = (element, types) => asks(element, types.length > 1 ? "press" : "click");
  window.__rwClock = { advance: () => {}, hears, takeKept: () => 0 };
})();
