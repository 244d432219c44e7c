// One walk over the DOM: what is there, what it is called, what state it is in, and what a click would reach.
(() => {
  "use strict";
  if (Object.hasOwn(window, "__rwWalk")) return;
  const SKIP_IDS = new Set(["query", "reward-display", "sync-task-cover", "click-canvas", "attention-canvas"]);
  const SKIP_TAGS = new Set(["SCRIPT", "STYLE", "NOSCRIPT", "TEMPLATE", "HEAD", "CANVAS", "desc", "defs", "title"]);
  const FRAME_IDS = new Set(["wrap", "area"]);
  const EDITABLE = '[contenteditable="" i],[contenteditable=true i],[contenteditable=plaintext-only i]';
  const NATIVE = `a[href],button,input:not([type=hidden]),select,textarea,summary,${EDITABLE}`;
  const ROLES = new Set(["button", "link", "tab", "menuitem", "option", "checkbox", "radio", "switch", "slider", "treeitem"]);
  const foreign = Object.hasOwn(window, "__rwEars");  // a page of somebody else: see foreign.js
  if (foreign) for (const role of ["combobox", "menuitemcheckbox", "menuitemradio", "searchbox", "spinbutton", "textbox"]) ROLES.add(role);
  const SHAPES = new Set(["circle", "rect", "polygon", "ellipse", "path", "line"]);
  const TEXT_TYPES = new Set(["text", "password", "search", "email", "url", "tel", "number", "date", "time", "color", ""]);
  const WRITTEN = new Set([...TEXT_TYPES, "month", "week", "datetime-local"]);
  const MAX_OPTIONS = 40;
  const MAX_NAME = 120;

  // Names in a page (`<input name=childNodes>`) hide what a form and the document have: these two are asked past them.
  const native = (Kind, name) => Function.prototype.call.bind(Object.getOwnPropertyDescriptor(Kind.prototype, name).get);
  const nodesOf = native(Node, "childNodes");
  const bodyOf = native(Document, "body");
  const shadowOf = native(Element, "shadowRoot");
  const insideOf = { IFRAME: native(HTMLIFrameElement, "contentDocument"), FRAME: native(HTMLFrameElement, "contentDocument") };
  const isSvg = (element) => element.namespaceURI === "http://www.w3.org/2000/svg";  // a frame has classes of its own

  // A page without end is read up to a limit.
  class Cut extends Error {}
  let until = Infinity;
  const tick = () => { if (until < Infinity && performance.now() > until) throw new Cut(); };

  let ids = new WeakMap();
  let byId = new Map();
  const forget = () => { ids = new WeakMap(); byId = new Map(); };
  // Numbers stay with their element for the whole episode; an id is never given to another one.
  const idOf = (element) => {
    if (!ids.has(element)) { ids.set(element, byId.size + 1); byId.set(byId.size + 1, element); }
    return ids.get(element);
  };
  const elementOf = (id) => {
    const element = byId.get(Number(id));
    return element && element.isConnected && element.ownerDocument.defaultView ? element : null;
  };

  const squeeze = (text) => text.replace(/\s+/g, " ").trim();
  // Text is counted in UTF-16 units: a sign of two of them (an emoji) stays whole or goes whole.
  const head = (text, units) => text.slice(0, /[\uD800-\uDBFF]/.test(text[units - 1] || "") && text.length > units ? units - 1 : units);
  const short = (text) => { const line = squeeze(text); return line.length > MAX_NAME ? head(line, MAX_NAME) + "..." : line; };

  const hidden = (element, style) =>
    style.display === "none" || style.visibility !== "visible" && !element.children.length || style.clip.startsWith("rect(0px");
  const hasBox = (element) => { const box = element.getBoundingClientRect(); return box.width > 0 && box.height > 0; };

  const shown = (element) => {
    if (!hasBox(element)) return false;
    const style = getComputedStyle(element);
    return style.visibility === "visible" && style.display !== "none" && Number(style.opacity) > 0;
  };

  const MOVABLE = ".ui-sortable-handle,.ui-draggable,.ui-draggable-handle,.ui-slider-handle";

  const delegated = (element) => {
    if (foreign) return __rwEars(element);  // the page's own jQuery is out of sight: ears.js is asked
    const data = window.jQuery && jQuery._data;
    for (let up = element.parentElement; data && up; up = up.parentElement) {
      const events = jQuery._data(up, "events");
      for (const type of ["click", "mousedown", "mouseup"]) {
        const handlers = (events && events[type]) || [];
        if (handlers.some((handler) => handler.selector && element.matches(handler.selector))) return true;
      }
    }
    return false;
  };
  const PRESSES = ["click", "mousedown", "mouseup", "dblclick", "pointerdown", "pointerup"];
  const ownHandler = (element, types = PRESSES) => {
    if (types.some((type) => element[`on${type}`])) return true;
    if (!__rwClock.hears(element, types)) return false;
    const data = window.jQuery && jQuery._data && jQuery._data(element, "events");
    if (!data) return true;
    // jQuery puts delegated handlers on the container: those belong to the matching children, not to it.
    return types.some((type) => (data[type] || []).some((handler) => !handler.selector));
  };
  const pointer = (element, style) =>
    style.cursor === "pointer" && getComputedStyle(element.parentElement || element.getRootNode().host || element).cursor !== "pointer";
  const marked = (element, style) =>
    ROLES.has(element.getAttribute("role")) || element.matches(MOVABLE) || ownHandler(element) || delegated(element) || pointer(element, style);

  // What is drawn inside an element: its open shadow tree in place of its children, and what is put into a slot.
  const childrenOf = (element) => {
    if (!foreign) return nodesOf(element);
    const given = element.tagName === "SLOT" ? element.assignedNodes({ flatten: true }) : [];
    return given.length ? given : nodesOf(shadowOf(element) || element);
  };
  const everyInside = function* (root) {
    for (const child of root.querySelectorAll("*")) {
      yield child;
      if (shadowOf(child)) yield* everyInside(shadowOf(child));
    }
  };
  const drawnText = (element) => [...childrenOf(element)].map((child) => {
    if (child.nodeType === Node.TEXT_NODE) return child.data;
    return child.nodeType !== Node.ELEMENT_NODE || SKIP_TAGS.has(child.tagName) ? "" : drawnText(child);
  }).join("");
  const textOf = (element) => {
    const shady = foreign && (shadowOf(element) || [...element.querySelectorAll("*")].some((child) => child.tagName === "SLOT" || shadowOf(child)));
    return shady ? drawnText(element) : element.textContent;
  };
  const designed = (element) => foreign && element.tagName === "BODY" && element.ownerDocument.designMode === "on";
  const editable = (element) => element.isContentEditable || designed(element);

  const controlsInside = (element) => {
    if (foreign && shadowOf(element) && [...everyInside(shadowOf(element))].some((child) => clickable(child, getComputedStyle(child)) && shown(child))) return true;
    if ([...element.querySelectorAll(NATIVE)].some(shown)) return true;
    const handled = (child) => tick() || ROLES.has(child.getAttribute("role")) || child.matches(MOVABLE) || ownHandler(child) || delegated(child);
    const all = foreign ? [...everyInside(element)] : [...element.querySelectorAll("*")];
    return all.some((child) => (handled(child) || foreign && child.tagName in insideOf) && shown(child));
  };
  // Styled controls hide the real one, and their label stands for it.
  const hiddenControl = (element) =>
    foreign && element.tagName === "LABEL" && element.control && !shown(element.control) ? element.control : null;
  const frame = (element) =>
    FRAME_IDS.has(element.id) || element === bodyOf(element.ownerDocument) || element.tagName === "svg" || element.tagName === "LABEL";
  // A whole application hears clicks at its root: a line for each of its parts says more than one for all of it.
  const wordy = (element) => foreign && !ROLES.has(element.getAttribute("role")) && squeeze(textOf(element)).length > MAX_NAME;
  const clickable = (element, style) => {
    tick();
    if (element.matches(NATIVE) || hiddenControl(element) || designed(element)) return true;
    return !frame(element) && marked(element, style) && !controlsInside(element) && !wordy(element);
  };

  const HUES = [[15, "red"], [45, "orange"], [70, "yellow"], [165, "green"], [195, "cyan"], [255, "blue"], [290, "purple"], [335, "pink"], [360, "red"]];
  const colourName = (css) => {
    const [r, g, b, a = 1] = (css.match(/[\d.]+/g) || []).map(Number);
    if (r === undefined || a === 0) return "";
    const top = Math.max(r, g, b), spread = top - Math.min(r, g, b), light = (top + Math.min(r, g, b)) / 2;
    if (spread < 25) return light > 240 ? "white" : light < 25 ? "black" : "grey";
    const raw = top === r ? ((g - b) / spread) % 6 : top === g ? (b - r) / spread + 2 : (r - g) / spread + 4;
    const hue = (raw * 60 + 360) % 360;
    return HUES.find(([limit]) => hue <= limit)[1];
  };
  const looks = (element, style) => {
    if (isSvg(element)) return colourName(style.fill) || colourName(style.stroke);
    return colourName(style.backgroundColor);
  };

  const roleOf = (element) => {
    const control = hiddenControl(element);
    if (control) return roleOf(control);
    const tag = element.tagName.toLowerCase();
    const tab = element.closest("[role=tab]");
    if (tab && (tab === element || tag === "a")) return "tab";
    if (element.hasAttribute("role") && ROLES.has(element.getAttribute("role"))) return element.getAttribute("role");
    if (tag === "input") {
      const type = element.type;
      if (TEXT_TYPES.has(type)) return "textbox";
      if (["button", "submit", "reset", "image"].includes(type)) return "button";
      return type === "range" ? "slider" : type;
    }
    if (tag === "a") return "link";
    if (editable(element)) return "textbox";
    if (["button", "select", "textarea"].includes(tag)) return tag;
    if (tag === "img") return "image";
    if (element.classList.contains("ui-slider-handle")) return "slider";
    if (tag === "li") return "item";
    if (isSvg(element)) return tag;
    if (getComputedStyle(element).textDecorationLine.includes("underline")) return "link";
    return ["span", "div", "p", "td", "tr", "b", "i", "small"].includes(tag) || tag.startsWith("h") ? "text" : tag;
  };

  let labelled = true;  // whether the page has labels at all: each control would look through all of the page for its own
  const labelledBy = (element) => {
    if (!foreign || !element.hasAttribute("aria-labelledby")) return "";
    const parts = element.getAttribute("aria-labelledby").split(/\s+/).map((id) => element.getRootNode().getElementById(id));
    return parts.map((part) => (part ? part.textContent : "")).join(" ");
  };
  const ownName = (element) => {
    const given = element.getAttribute("aria-label") || element.alt || element.title || element.placeholder;
    if (element.matches("input[type=button],input[type=submit],input[type=reset]")) return element.value || given || "";
    if (labelled && element.labels && element.labels.length) return element.labels[0].textContent || given || "";
    if (element.matches("input,select,textarea")) return given || labelledBy(element);
    return squeeze(textOf(element)) || given || labelledBy(element);
  };
  const PALE = new Set(["", "white", "black", "grey"]);
  const sizeOf = (element) => `${Math.round(element.getBoundingClientRect().width)}px`;
  // What to call a control without text: [role, name] from its colour, else from its classes or id.
  const spare = (element, style, role) => {
    const given = element.dataset.color;
    const look = given || looks(element, style);
    if (isSvg(element)) return [role, `${look} ${sizeOf(element)}`];
    const classes = String(element.className).replace(/\bui-(state|corner|widget|button|icon|draggable|sortable|droppable)\S*|\b(ui|ql)-/g, "");
    const words = [...new Set(classes.split(/[\s-]+/))].filter((word) => word && word !== role).join(" ");
    if (!given && PALE.has(look) && role !== "slider" && (words || element.id)) return [role === "text" ? "icon" : role, words || element.id];
    return role === "slider" ? [role, ""] : [role === "text" ? "box" : role, look];
  };
  const followingText = (element) => {
    const next = element.nextSibling;
    return next && next.nodeType === Node.TEXT_NODE ? next : null;
  };

  const states = (element) => {
    const found = [];
    const tab = element.closest("[role=tab]") || element;
    if ((hiddenControl(element) || element).checked || element.getAttribute("aria-checked") === "true") found.push("on");
    if (tab.getAttribute("aria-selected") === "true") found.push("selected");
    else if (tab.getAttribute("aria-expanded") === "true") found.push("open");
    const told = (name) => foreign && element.getAttribute(`aria-${name}`);
    if (told("pressed") === "true") found.push("on");
    if (told("checked") === "mixed") found.push("mixed");
    if (element.disabled || told("disabled") === "true") found.push("disabled");
    if (element.readOnly) found.push("readonly");
    if (element.getRootNode().activeElement === element) found.push("focused");
    return found;
  };
  const valueOf = (element, role) => {
    if (foreign && editable(element)) return squeeze(element.innerText ?? element.textContent);
    if (role === "textbox" || role === "textarea") return squeeze(element.isContentEditable ? element.textContent : element.value);
    if (foreign && element.matches("input") && WRITTEN.has(element.type)) return squeeze(element.value);
    if (role === "slider" || role === "spinbutton") return String(element.value ?? (foreign && element.getAttribute("aria-valuetext") || element.getAttribute("aria-valuenow")) ?? "");
    return null;
  };

  const clamp = (item, chars) => {
    for (const key of ["name", "value"]) if (item[key]) item[key] = head(item[key], chars);
    if (item.options) item.options = item.options.map((option) => head(option, MAX_NAME));
    return item;
  };
  // Returns [{id, role, name, value, states, options, box, clickable}] in reading order; plain text has no id.
  // `limits` {items, chars, ms} are for pages that may be hostile: reading ends there, and goes on past what raises.
  const walk = (limits = null) => {
    const items = [];
    let used = 0;
    until = limits ? performance.now() + limits.ms : Infinity;
    labelled = Document.prototype.getElementsByTagName.call(document, "label").length > 0;
    const add = (item) => {
      items.push(limits ? clamp(item, limits.chars) : item);
      used += item.name.length;
      if (limits && (items.length >= limits.items || used >= limits.chars)) throw new Cut();
    };
    const eaten = new Set();
    let words = "";
    let speaker = null;  // the element that the words come from
    let owner = null;  // the container around it that hears clicks, until one line stands for it
    const boxOf = (element) => { const b = element.getBoundingClientRect(); return [b.x, b.y, b.width, b.height].map(Math.round); };
    const flush = () => {
      const text = squeeze(words);
      words = "";
      if (!text) return;
      if (owner && owner.contains(speaker) && shown(speaker)) {
        add({ id: idOf(speaker), role: "text", name: short(text), box: boxOf(speaker), clickable: true });
        owner = null;
      } else add({ role: "", name: text });
    };

    const emit = (element, style) => {
      let role = roleOf(element);
      let name = squeeze(ownName(element));
      if (!name && (role === "checkbox" || role === "radio") && followingText(element)) {
        name = squeeze(followingText(element).data);
        eaten.add(followingText(element));
      } else if (!name && element.matches("input,select,textarea") && squeeze(words)) {
        name = squeeze(words);
        words = "";
      }
      flush();
      name = name.replace(/[\s:|]+$/, "");
      if (!name && !element.matches("input,select,textarea")) [role, name] = spare(element, style, role);
      else if (element instanceof SVGTextElement && looks(element, style) !== "black") name = `${name} ${looks(element, style)} ${sizeOf(element)}`;
      const item = { id: idOf(element), role, name: short(name), value: valueOf(element, role), states: states(element), box: boxOf(element), clickable: true };
      if (editable(element)) item.name = foreign ? short(element.getAttribute("aria-label") || labelledBy(element)) : role === "textbox" ? "" : item.name;
      if (element.tagName === "SELECT") {
        item.options = [...element.options].slice(0, MAX_OPTIONS).map((option) => squeeze(option.text));
        item.value = [...element.selectedOptions].map((option) => squeeze(option.text)).join(", ");
        item.more = Math.max(0, element.options.length - MAX_OPTIONS);
      }
      add(item);
    };
    const visitText = (node) => {
      if (eaten.has(node)) return;
      const parent = node.parentElement || node.parentNode.host;
      const label = parent.closest("label");
      if (label && label.control && shown(label.control)) return;
      if (!squeeze(words)) speaker = parent;
      words += node.data;
    };
    // A tree apart has labels of its own.
    const apart = (root, run) => {
      const before = labelled;
      labelled = root.querySelector("label") !== null;
      try { run(); } finally { labelled = before; }
    };
    const visitFrame = (element) => {
      if (!shown(element) || !element.clientWidth || !element.clientHeight) return;
      flush();
      const inside = insideOf[element.tagName](element);
      if (inside && inside.defaultView) {
        if (window.__rwWalk.entered) window.__rwWalk.entered(inside.defaultView);
        if (bodyOf(inside)) apart(inside, () => visit(bodyOf(inside)));
        flush();
      } else add({ role: "", name: `(a frame of another site, which is not shown: ${short(element.title || element.src || "no address")})` });
    };
    // Nothing of a closed shadow tree can be read.
    const closed = (element) =>
      element.tagName.includes("-") && !shadowOf(element) && !nodesOf(element).length && element.matches(":defined") && hasBox(element);
    const inspect = (element) => {
      if (SKIP_TAGS.has(element.tagName) || SKIP_IDS.has(element.id)) return;
      const style = getComputedStyle(element);
      if (hidden(element, style)) return;
      if (element.tagName === "BR") { flush(); return; }
      if (foreign && element.tagName in insideOf) { visitFrame(element); return; }
      if (clickable(element, style) && shown(element)) { emit(element, style); return; }
      if (foreign && closed(element)) { flush(); add({ role: "", name: `(${element.tagName.toLowerCase()}: closed, its inside is not shown)` }); return; }
      if (element.tagName === "IMG" && element.alt) { words += ` ${element.alt} `; return; }
      if (SHAPES.has(element.tagName) && shown(element)) { flush(); add({ role: "", name: `${looks(element, style)} ${element.tagName} ${sizeOf(element)}`, box: boxOf(element) }); return; }
      const cell = style.display === "table-cell";
      const block = !style.display.startsWith("inline") && !cell && !(foreign && style.display === "contents");
      if (block) flush();
      if (cell && squeeze(words)) words += " | ";
      const outer = owner;
      const owns = !frame(element) && ownHandler(element, ["click"]);
      if (owns) { flush(); owner = element; }
      const inside = () => {
        for (const child of childrenOf(element)) {
          if (child.nodeType === Node.TEXT_NODE) { if (style.visibility === "visible") visitText(child); }
          else if (child.nodeType === Node.ELEMENT_NODE) visit(child);
        }
      };
      if (foreign && shadowOf(element)) apart(shadowOf(element), inside); else inside();
      if (block || owns) flush();
      if (owns) owner = outer;
    };
    const visit = (element) => {
      try { inspect(element); } catch (problem) {
        if (!limits || problem instanceof Cut || problem instanceof RangeError) throw problem;
        for (const child of nodesOf(element)) if (child.nodeType === Node.ELEMENT_NODE) visit(child);
      }
    };
    try {
      const body = bodyOf(document);
      if (body || !limits) visit(body);
      flush();
    } catch (problem) {  // a RangeError: nested deeper than the stack
      if (!limits || !(problem instanceof Cut || problem instanceof RangeError)) throw problem;
      items.push({ role: "", name: "... the page goes on" });
    }
    return items;
  };
  window.__rwWalk = { walk, forget, elementOf, idOf, shown, shadowOf, editable, foreign };
})();
