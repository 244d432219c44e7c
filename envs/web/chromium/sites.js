// Actions and observations on the small sites. Runs after walk.js and act.js, on every page that is loaded.
(() => {
  "use strict";
  if (Object.hasOwn(window, "__rwSites")) return;
  // Pages of the sites have no script of their own: no clock to stop, no listener to ask about.
  if (!Object.hasOwn(window, "__rwClock")) window.__rwClock = { advance: () => {}, hears: () => false, takeKept: () => 0 };
  const { WAYS, need, Slip } = window.__rw;
  const { walk, elementOf, shown } = window.__rwWalk;
  const FILES = "this opens a choice of files; files cannot be chosen here";
  const LEAVES = "this link leaves the site; it is not followed";

  let leaving = false;
  let foreign = 0;
  let files = false;
  let framing = false;
  // Where a link or a form leads: this page goes, a frame in it goes, or another tab opens.
  const heads = (view, target) => {
    const name = (target || "_self").toLowerCase();
    if (name === "_top" || name === "_parent" && view.parent === window) leaving = true;
    else if (name === "_self" && view === window) leaving = true;
    else if (name !== "_blank") framing = true;
  };
  const addressOf = (link) => { try { return new URL(link.getAttribute("href"), link.baseURI); } catch { return null; } };
  const listen = (view) => {
    view.addEventListener("submit", (event) => { if (!event.defaultPrevented) heads(view, event.target.getAttribute("target")); });
    view.addEventListener("click", (event) => {
      const path = event.composedPath();
      files = files || path[0].type === "file" && !event.defaultPrevented;
      const link = path.find((node) => node.nodeType === Node.ELEMENT_NODE && node.matches("a[href]"));
      const address = link && !event.defaultPrevented ? addressOf(link) : null;
      if (!address || address.protocol === "javascript:") return;
      if (address.host === location.host) {
        if (!address.hash || address.href.split("#")[0] !== view.location.href.split("#")[0]) heads(view, link.getAttribute("target"));
        return;
      }
      event.preventDefault();
      foreign++;
    });
  };
  listen(window);
  const known = new WeakSet();
  window.__rwWalk.entered = (view) => {
    if (known.has(view.document)) return;
    known.add(view.document);
    listen(view);
  };

  const submit = (form) => {
    const button = form.querySelector("button:not([type=button]),input[type=submit]");
    if (button) button.click(); else form.requestSubmit();
  };
  // What the key does to a control, as the HTML standard has it: activation, or the form's first button.
  const enter = (element) => {
    element.focus();
    if (element.matches("a[href],button")) element.click();
    else if (element.matches("input") && element.form) submit(element.form);
    else throw new Slip("Enter does nothing here");
  };
  const begin = () => { leaving = framing = files = false; foreign = 0; };
  const left = (error = "") => ({ error: foreign ? LEAVES : files ? FILES : error, leaving, framing, closing: window.closed, foreign, files });
  const act = (action, reads = true) => {
    begin();
    let error = "";
    try {
      if (action.name === "press") enter(need(action.id)); else WAYS[action.name](action);
    } catch (problem) {
      if (!(problem instanceof Slip)) throw problem;
      error = problem.message;
    }
    return JSON.stringify({ ...left(error), items: leaving || !reads ? [] : walk() });
  };
  // A key of the browser's own keyboard goes to this control; afterwards, where that leads.
  const aim = (id) => {
    begin();
    let error = "";
    try { need(id).focus(); } catch (problem) {
      if (!(problem instanceof Slip)) throw problem;
      error = problem.message;
    }
    return JSON.stringify({ error });
  };
  // An element that Playwright knows by a reference of its own: it sends an event from there, and we see from where.
  let marked = 0;
  const attentive = new WeakSet();
  const attend = (view, name) => {
    if (!attentive.has(view.document)) {
      attentive.add(view.document);
      if (view !== window) window.__rwWalk.entered(view);
      view.addEventListener(name, (event) => {
        event.stopImmediatePropagation();
        const [element] = event.composedPath();
        const label = shown(element) ? null : [...element.labels || []].find(shown);  // it stands for a hidden control
        marked = window.__rwWalk.idOf(label || element);
      }, true);
    }
    for (const frame of view.document.querySelectorAll("iframe,frame")) if (frame.contentDocument) attend(frame.contentDocument.defaultView, name);
  };
  const mark = (name) => { marked = 0; attend(window, name); return "{}"; };
  const size = () => JSON.stringify({ elements: document.querySelectorAll("*").length });
  const look = (limits = null) => JSON.stringify({ items: walk(limits) });

  // What a visitor has changed, by control number; and the same put into another copy of the page.
  const squeeze = (text) => text.replace(/\s+/g, " ").trim();
  const held = (element) => {
    if (element.matches("[type=checkbox]")) return element.checked === element.defaultChecked ? null : element.checked;
    if (element.tagName === "SELECT") {
      const usual = Math.max(0, [...element.options].findIndex((option) => option.defaultSelected));
      return element.selectedIndex === usual ? null : squeeze(element.selectedOptions[0].text);
    }
    return element.matches("input,textarea") && element.value !== element.defaultValue ? element.value : null;
  };
  const filled = () => {
    const fields = {};
    let focused = 0;
    for (let id = 1, element; (element = elementOf(id)); id++) {
      const value = held(element);
      if (value !== null) fields[id] = value;
      if (element === document.activeElement) focused = id;
    }
    return JSON.stringify({ fields, focused });
  };
  const put = ({ fields, focused }) => {
    walk();
    for (const [id, value] of Object.entries(fields)) {
      const element = elementOf(id);
      if (typeof value === "boolean") element.checked = value;
      else if (element.tagName === "SELECT") element.selectedIndex = [...element.options].findIndex((o) => squeeze(o.text) === value);
      else element.value = value;
    }
    if (focused) elementOf(focused).focus();
    return look();
  };
  window.__rwSites = { act, aim, left: () => JSON.stringify(left()), mark, marked: () => JSON.stringify({ id: marked }), size, look, filled, put };
})();
