// Runs before every page script. Replaces wall time by a clock that only moves when the environment says so (a slow
// policy must not lose to a timer, and the same actions must give the same page), and remembers who listens to clicks.
(() => {
  "use strict";
  if (window.__rwClock) return;
  const RealDate = Date;
  const FRAME_MS = 16;
  const EPOCH_MS = RealDate.UTC(2020, 0, 1, 12);
  const MAX_CALLBACKS = 20000;
  const timers = new Map();
  let now = EPOCH_MS;
  let nextId = 1;

  console.log = () => {};  // each message would travel to our process; the tasks write one an episode

  const add = (callback, delay, every, args) => {
    const run = typeof callback === "function" ? callback : new Function(String(callback));
    const wait = Math.max(0, Number(delay) || 0);
    timers.set(nextId, { at: now + wait, every: every ? Math.max(1, wait) : 0, run, args });
    return nextId++;
  };
  const remove = (id) => { timers.delete(id); };
  window.setTimeout = (callback, delay, ...args) => add(callback, delay, false, args);
  window.setInterval = (callback, delay, ...args) => add(callback, delay, true, args);
  window.clearTimeout = remove;
  window.clearInterval = remove;
  window.requestAnimationFrame = (callback) => add(() => callback(now - EPOCH_MS), FRAME_MS, false, []);
  window.cancelAnimationFrame = remove;
  performance.now = () => now - EPOCH_MS;
  window.Date = new Proxy(RealDate, {
    construct: (target, args, self) => Reflect.construct(target, args.length ? args : [now], self),
    apply: () => new RealDate(now).toString(),
    get: (target, key) => (key === "now" ? () => now : Reflect.get(target, key)),
  });

  const earliest = (limit) => {
    let best = null;
    for (const [id, timer] of timers) {
      if (timer.at <= limit && (best === null || timer.at < best[1].at)) best = [id, timer];
    }
    return best;
  };

  // Runs everything that is due within `ms`, in order of due time. A page that schedules without end is cut off.
  const advance = (ms) => {
    const limit = now + ms;
    for (let calls = 0; calls < MAX_CALLBACKS; calls++) {
      const due = earliest(limit);
      if (due === null) break;
      const [id, timer] = due;
      now = Math.max(now, timer.at);
      if (timer.every) timer.at = now + timer.every; else timers.delete(id);
      try { timer.run.apply(window, timer.args); } catch (error) { reportError(error); }
    }
    now = limit;
  };

  // jQuery and d3 both end in addEventListener, so one hook sees the handlers of every library.
  const POINTER = new Set(["click", "mousedown", "mouseup", "dblclick", "pointerdown", "pointerup"]);
  const listeners = new WeakMap();
  const addListener = EventTarget.prototype.addEventListener;
  const removeListener = EventTarget.prototype.removeEventListener;
  EventTarget.prototype.addEventListener = function (type, callback, options) {
    if (POINTER.has(type) && this instanceof Element) {
      if (!listeners.has(this)) listeners.set(this, new Map());
      const known = listeners.get(this);
      known.set(type, (known.get(type) || new Set()).add(callback));
    }
    return addListener.call(this, type, callback, options);
  };
  EventTarget.prototype.removeEventListener = function (type, callback, options) {
    const known = listeners.get(this);
    if (known && known.has(type)) known.get(type).delete(callback);
    return removeListener.call(this, type, callback, options);
  };
  const hears = (element, types) => {
    const known = listeners.get(element);
    return Boolean(known) && types.some((type) => known.has(type) && known.get(type).size > 0);
  };

  // Leaving the page would end the episode in the middle: links and forms stay, what they asked for is counted.
  let kept = 0;
  addListener.call(window, "submit", (event) => { if (!event.defaultPrevented) { event.preventDefault(); kept++; } });
  addListener.call(window, "click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
    if (!link || event.defaultPrevented) return;
    const href = link.getAttribute("href");
    if (href.startsWith("#") || href.startsWith("javascript:")) return;
    event.preventDefault();
    kept++;
  });
  window.open = () => { kept++; return null; };

  const takeKept = () => { const taken = kept; kept = 0; return taken; };
  window.__rwClock = { advance, hears, takeKept };
})();
