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
  const listeners = new WeakMap();  // element -> how many handlers each kind of press has
  const { addEventListener, removeEventListener } = EventTarget.prototype;
  const note = (target, type, callback, known) => {
    if (!PRESSES.includes(type) || !callback || !(target instanceof Element)) return;
    if (!listeners.has(target)) listeners.set(target, new Map());
    const handlers = listeners.get(target);
    if (!handlers.has(type)) handlers.set(type, new Set());
    if (known) handlers.get(type).add(callback); else handlers.get(type).delete(callback);
  };
  EventTarget.prototype.addEventListener = function (type, callback, options) {
    note(this, type, callback, true);
    return addEventListener.call(this, type, callback, options);
  };
  EventTarget.prototype.removeEventListener = function (type, callback, options) {
    note(this, type, callback, false);
    return removeEventListener.call(this, type, callback, options);
  };
  const heard = (element, types) => {
    const handlers = listeners.get(element);
    return Boolean(handlers) && types.some((type) => handlers.has(type) && handlers.get(type).size > 0);
  };
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
  const { composedPath } = Event.prototype;
  const ANSWERS = {
    press: (element) => PRESSES.some((type) => element[`on${type}`]) || heard(element, PRESSES),
    click: (element) => Boolean(element.onclick) || heard(element, ["click"]),
    delegated,
  };
  for (const [what, answer] of Object.entries(ANSWERS)) {
    window.addEventListener(QUESTION + what, (event) => {
      event.stopImmediatePropagation();
      if (answer(composedPath.call(event)[0])) event.preventDefault();
    }, true);
  }
})();
