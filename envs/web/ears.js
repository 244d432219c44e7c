// Runs before every script of somebody else's page, in the page's own world, where alone its handlers can be seen. A
// question is an event that does not bubble, with a name that nobody knows; cancelling it means yes. A page that lies
// here only hides or offers its own elements.
(() => {
  "use strict";
  // Each message and each error would travel to our process; a page that floods them would hold up its neighbours.
  for (const name of Object.keys(console)) console[name] = () => {};
  for (const type of ["error", "unhandledrejection"]) window.addEventListener(type, (event) => event.preventDefault(), true);

  const QUESTION = "__RW_QUESTION__";
  const PRESSES = ["click", "mousedown", "mouseup", "dblclick", "pointerdown", "pointerup"];
  const delegated = (element) => {
    const data = window.jQuery && jQuery._data;
    for (let up = element.parentElement; data && up; up = up.parentElement) {
      const events = jQuery._data(up, "events") || {};
      for (const type of ["click", "mousedown", "mouseup"]) {
        if ((events[type] || []).some((handler) => handler.selector && element.matches(handler.selector))) return true;
      }
    }
    return false;
  };
  const ANSWERS = {
    press: (element) => PRESSES.some((type) => element[`on${type}`]),
    click: (element) => Boolean(element.onclick),
    delegated,
  };
  for (const [what, answer] of Object.entries(ANSWERS)) {
    window.addEventListener(QUESTION + what, (event) => {
      event.stopImmediatePropagation();
      if (answer(event.target)) event.preventDefault();
    }, true);
  }
})();
