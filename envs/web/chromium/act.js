// Episodes and actions inside the page. Everything returns a JSON string, so that one call both acts and observes.
(() => {
  "use strict";
  if (Object.hasOwn(window, "__rw")) return;
  const NO_LIMIT_MS = 1e9;
  const FILES = "files cannot be chosen here";
  const FOCUSABLE = "a[href],button,input,select,textarea,[tabindex],[contenteditable]";
  const SETTLE_MS = 120;
  const MAX_SETTLES = 200;

  class Slip extends Error {}
  const need = (id) => {
    const element = __rwWalk.elementOf(id);
    if (!element) throw new Slip(`no element ${id} on this page`);
    if (!__rwWalk.shown(element)) throw new Slip(`element ${id} is not visible`);
    return element;
  };

  const utterance = () => {
    const given = core.getUtterance();
    return typeof given === "string" ? given : String(given.utterance ?? JSON.stringify(given));
  };
  let current = null;  // the seed of the running episode; a page that was reloaded has none
  // Pictures give icons their size: an icon that has not arrived yet would be missing from the observation.
  const arrived = (image) => new Promise((done) => {
    image.addEventListener("load", done);
    image.addEventListener("error", done);
  });
  const drawn = new Map();  // address of a picture set by a style sheet -> the promise of its arrival
  let styled = false;
  const styledPictures = () => {
    for (const element of document.querySelectorAll("#area *")) {
      const found = /^url\("(.+)"\)/.exec(getComputedStyle(element).content);
      if (!found || drawn.has(found[1])) continue;
      const image = new Image();
      drawn.set(found[1], arrived(image));
      image.src = found[1];
    }
    styled = drawn.size > 0;
  };
  const pictures = async (starting) => {
    if (starting || styled) styledPictures();
    const late = [...document.images].filter((image) => !image.complete).map(arrived);
    if (late.length || styled) await Promise.all([...late, ...drawn.values()]);
  };
  const begin = async (seed, mode) => {
    current = seed;
    window.__rwStyle ??= document.head.appendChild(Object.assign(document.createElement("style"), { textContent: "*{transition:none!important;animation:none!important}" }));
    if (window.jQuery) jQuery.fx.off = true;
    core.canvasClear = core.canvasDrawClick = core.updateDisplay = () => {};  // the display of scores and clicks
    if (core.EP_TIMER !== null) core.endEpisode(0);
    core.EPISODE_MAX_TIME = NO_LIMIT_MS;
    core.setDataMode(mode);
    if (document.activeElement && document.activeElement !== document.body) document.activeElement.blur();
    for (const element of document.querySelectorAll("#area, #area *")) {
      element.scrollTop = 0;
      if (element instanceof HTMLInputElement) Object.assign(element, { value: element.defaultValue, checked: element.defaultChecked });
    }
    __rwWalk.forget();
    Math.seedrandom(String(seed));
    core.startEpisodeReal();
    __rwClock.advance(SETTLE_MS);
    for (let i = 0; i < MAX_SETTLES && !WOB_TASK_READY; i++) __rwClock.advance(SETTLE_MS);
    await pictures(true);
    return report({ goal: utterance() });
  };
  const report = (extra) => JSON.stringify({
    seed: current,
    done: WOB_DONE_GLOBAL,
    raw: WOB_RAW_REWARD_GLOBAL,
    why: WOB_REWARD_REASON ?? "",
    kept: __rwClock.takeKept(),
    items: WOB_DONE_GLOBAL ? [] : __rwWalk.walk(),
    ...extra,
  });

  const spots = (element) => {
    const found = [];
    const rects = [...element.getClientRects()].filter((rect) => rect.width > 0 && rect.height > 0);
    for (const rect of rects.length ? rects : [element.getBoundingClientRect()]) {
      for (const fy of [0.5, 0.25, 0.75, 0.1, 0.9]) {
        for (const fx of [0.5, 0.25, 0.75, 0.1, 0.9]) found.push([rect.x + rect.width * fx, rect.y + rect.height * fy]);
      }
    }
    return found;
  };
  // What lies at a point: inside open shadow trees too.
  const hitAt = (page, [x, y]) => {
    let hit = page.elementFromPoint(x, y);
    for (let shadow; hit && (shadow = __rwWalk.shadowOf(hit));) {
      const inner = shadow.elementFromPoint(x, y);
      if (!inner || !shadow.contains(inner)) break;
      hit = inner;
    }
    return hit;
  };
  const holds = (element, other) => {
    for (let up = other; up; up = up.parentNode || up.host) if (up === element) return true;
    return false;
  };
  // The point a hand would aim at: on the element itself, where something lies over its centre or a shape is hollow.
  const aim = (element) => {
    const inside = (at) => { const hit = hitAt(element.ownerDocument, at); return hit && holds(element, hit); };
    const first = spots(element)[0];
    if (!inside(first)) element.scrollIntoView({ block: "nearest", inline: "nearest" });
    const points = spots(element);
    return points.find(inside) ?? points[0];
  };

  const fire = (target, type, Kind, [x, y], detail) => target.dispatchEvent(new Kind(type, {
    bubbles: true, cancelable: true, composed: true, view: target.ownerDocument.defaultView, clientX: x, clientY: y, button: 0, detail,
    buttons: type.endsWith("down") ? 1 : 0, pointerId: 1, pointerType: "mouse", isPrimary: true,
  }));
  // Pressing and releasing the mouse at a point, with all events and the focus change that a hand causes.
  // `aimed` is the element that was meant: on foreign pages it gets the press that its frame, host or parent would get.
  const targetAt = (point, aimed) => {
    const page = aimed ? aimed.ownerDocument : document;
    const hit = hitAt(page, point) ?? page.body;
    return aimed && __rwWalk.foreign && holds(hit, aimed) ? aimed : hit;
  };
  const clickAt = (point, detail = 1, aimed = null) => {
    const target = targetAt(point, aimed);
    const page = target.ownerDocument;
    fire(target, "pointerover", PointerEvent, point, 0);
    fire(target, "mouseover", MouseEvent, point, 0);
    fire(target, "mousemove", MouseEvent, point, 0);
    fire(target, "pointerdown", PointerEvent, point, detail);
    const keepFocus = !fire(target, "mousedown", MouseEvent, point, detail);
    if (!keepFocus) {
      const next = target.closest(FOCUSABLE);
      if (next && !next.disabled) next.focus({ preventScroll: true });
      else if (page.activeElement) page.activeElement.blur();
    }
    fire(target, "pointerup", PointerEvent, point, detail);
    fire(target, "mouseup", MouseEvent, point, detail);
    fire(target, "click", PointerEvent, point, detail);
    return target;
  };

  const dblclickAt = (point, aimed = null) => {
    clickAt(point, 1, aimed);
    fire(clickAt(point, 2, aimed), "dblclick", MouseEvent, point, 2);
  };
  const point = (kinds, at, aimed = null) => {
    const target = targetAt(at, aimed);
    for (const kind of kinds) fire(target, kind, kind.startsWith("pointer") ? PointerEvent : MouseEvent, at, kind.endsWith("down") ? 1 : 0);
  };
  const MOVE = ["pointerover", "mouseover", "pointermove", "mousemove"];
  const DRAG_STEPS = 5;
  const drag = ([x, y], [toX, toY]) => {
    point([...MOVE, "pointerdown", "mousedown"], [x, y]);
    for (let i = 1; i <= DRAG_STEPS; i++) point(MOVE, [x + (toX - x) * i / DRAG_STEPS, y + (toY - y) * i / DRAG_STEPS]);
    point(["pointerup", "mouseup"], [toX, toY]);
  };
  const click = (element) => {
    if (element.disabled) throw new Slip("the element is disabled");
    if (element.type === "file") throw new Slip(FILES);
    clickAt(aim(element), 1, element);
  };
  const check = (given, wanted) => {
    const element = given.tagName === "LABEL" && given.control || given;
    const on = element.checked ?? (element.getAttribute("aria-checked") === "true");
    if (element.checked === undefined && !element.hasAttribute("aria-checked")) throw new Slip("the element is no checkbox");
    if (on !== wanted) click(given);
  };
  const setValue = (element, value) => {
    const proto = element.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
    Object.getOwnPropertyDescriptor(proto.prototype, "value").set.call(element, value);
    element.dispatchEvent(new Event("input", { bubbles: true }));
    element.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const FORMS = {
    date: "2024-12-31", time: "23:59", month: "2024-12", week: "2024-W52", "datetime-local": "2024-12-31T23:59", color: "#1a2b3c",
  };
  const NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;
  // A value that the control would drop is refused with the form that it takes; what was there stays.
  const checkForm = (element, value) => {
    const { type, min, max, step } = element;
    if (value === "" && type !== "color" && type !== "range") return;
    if (type === "number" && !NUMBER.test(value)) throw new Slip("this field takes a number; its value stays");
    if (type === "range" || type in FORMS) {
      const probe = Object.assign(element.cloneNode(), { value });
      const taken = type === "range" ? NUMBER.test(value) && Number(probe.value) === Number(value)
        : type === "color" ? /^#[0-9a-f]{6}$/i.test(value) : probe.value !== "";
      const form = type === "range" ? `a number from ${min || 0} to ${max || 100} in steps of ${step || 1}` : `text such as ${FORMS[type]}`;
      if (!taken) throw new Slip(`this ${type} field takes ${form}; its value stays`);
    }
  };
  const UNWRITTEN = ["checkbox", "radio", "button", "submit", "reset", "image", "file"].map((type) => `:not([type=${type}])`).join("");
  const fill = (element, value) => {
    if (element.type === "file") throw new Slip(FILES);
    if (!element.matches(`input${UNWRITTEN},textarea`) && !__rwWalk.editable(element)) throw new Slip("the element takes no text");
    if (element.matches(":disabled") || element.readOnly) throw new Slip("the element is read-only");
    checkForm(element, value);
    element.focus();
    if (element.type === "range" || element.type in FORMS) { setValue(element, value); return; }
    const page = element.ownerDocument, root = element.getRootNode();
    if (__rwWalk.editable(element)) (root.getSelection ? root : page).getSelection().selectAllChildren(element); else element.select();
    // insertText goes through the editor as typing does: trusted events, undo history, max length.
    if (value) page.execCommand("insertText", false, value); else page.execCommand("delete");
  };
  const selectOption = (element, wanted) => {
    if (element.tagName !== "SELECT") throw new Slip("the element is no list");
    const same = (a, b) => a.replace(/\s+/g, " ").trim().toLowerCase() === b.trim().toLowerCase();
    const chosen = wanted.map((text) => [...element.options].find((option) => same(option.text, text) || option.value === text));
    if (chosen.includes(undefined)) throw new Slip(`no option ${wanted[chosen.indexOf(undefined)]}`);
    element.focus();
    for (const option of element.options) option.selected = chosen.includes(option);
    element.dispatchEvent(new Event("input", { bubbles: true }));
    element.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const scroll = (dx, dy) => {
    const moves = (element) => {
      const before = [element.scrollLeft, element.scrollTop];
      element.scrollBy(dx, dy);
      element.dispatchEvent(new Event("scroll"));  // the browser sends its own with the next frame, if there is one
      return before[0] !== element.scrollLeft || before[1] !== element.scrollTop;
    };
    const inner = [...document.querySelectorAll("#area, #area *")].filter((e) => e.scrollHeight > e.clientHeight + 1 || e.scrollWidth > e.clientWidth + 1);
    for (const element of [...inner.reverse(), document.scrollingElement]) if (__rwWalk.shown(element) && moves(element)) return;
  };

  const WAYS = {
    click: (a) => click(need(a.id)),
    dblclick: (a) => dblclickAt(aim(need(a.id)), need(a.id)),
    hover: (a) => point(MOVE, aim(need(a.id)), need(a.id)),
    mouse_move: (a) => point(MOVE, [a.x, a.y]),
    mouse_down: (a) => point([...MOVE, "pointerdown", "mousedown"], [a.x, a.y]),
    mouse_up: (a) => point([...MOVE, "pointerup", "mouseup"], [a.x, a.y]),
    drag_and_drop: (a) => drag(aim(need(a.id)), aim(need(a.to))),
    mouse_drag_and_drop: (a) => drag([a.x, a.y], [a.to_x, a.to_y]),
    mouse_click: (a) => clickAt([a.x, a.y]),
    mouse_dblclick: (a) => dblclickAt([a.x, a.y]),
    fill: (a) => fill(need(a.id), a.text),
    clear: (a) => fill(need(a.id), ""),
    select_option: (a) => selectOption(need(a.id), a.options),
    check: (a) => check(need(a.id), true),
    uncheck: (a) => check(need(a.id), false),
    focus: (a) => need(a.id).focus(),
    scroll: (a) => scroll(a.x, a.y),
    noop: () => {},
  };
  const act = async (action, waitMs) => {
    let error = "";
    try { WAYS[action.name](action); } catch (problem) {
      if (!(problem instanceof Slip)) throw problem;
      error = problem.message;
    }
    return finish(waitMs, error);
  };
  const finish = async (waitMs, error) => {
    if (!error && !WOB_DONE_GLOBAL) __rwClock.advance(waitMs);
    await pictures(false);
    return report({ error });
  };
  const told = (call) => (id) => {
    try { return JSON.stringify(call(need(id))); } catch (problem) {
      if (!(problem instanceof Slip)) throw problem;
      return JSON.stringify({ error: problem.message });
    }
  };
  // Where the mouse has to go for actions that need a real pointer.
  const locate = told((element) => ({ point: aim(element) }));
  const focus = told((element) => { element.focus(); return {}; });
  // A page that was reloaded, or is still on its way, is not the page of this episode and has perhaps no body yet.
  const here = (call) => (...given) => {
    if (current === null) throw new Error("the page was left");
    return call(...given);
  };
  const look = () => report({ error: "" });
  window.__rw = { begin, act: here(act), finish: here(finish), locate: here(locate), focus: here(focus), look, WAYS, need, Slip };
})();
