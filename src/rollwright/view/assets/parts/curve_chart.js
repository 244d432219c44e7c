// One chart of one metric: a line for each run, faint raw values behind smoothed ones, intervals as bands.

import { columnsOf } from "rw/curve_series";
import { figure, visible } from "rw/format";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "rw/kit";

const Plot = globalThis.uPlot;
const HEIGHT = 190;
const TALL = 380;
// Of these the whole way from 0 to 1 is of interest. Other shares, such as faults, live near an end of it.
const SHARES = /success_frac$|pass_at_\d+$/;
const FEW = 12;
const WHOLE_STEPS = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((first) => first * 10 ** power));

/** A chart with its heading. `guide`: {text, healthy} or null; `onWide` widens it; `remove` may be null. */
export function CurveCard({ name, lines, weight, logarithmic, guide, wide, onWide }) {
  const [explained, setExplained] = useState(false);
  const readout = useRef(null);
  const frame = useRef(null);
  const near = useNear(frame);
  return html`<figure class=${`curve card ${wide ? "wide" : ""}`} ref=${frame} data-metric=${name}>
    <figcaption><h3 class="foreign">${visible(name)}</h3>
      ${guide && html`<button type="button" class="icon" aria-expanded=${explained} aria-label=${`What ${visible(name)} means`}
        onClick=${() => setExplained(!explained)}>?</button>`}
      <button type="button" class="icon" aria-label=${wide ? "Smaller" : "Larger"} onClick=${onWide}><svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">
        <path d=${wide ? "M13 1 L8 6 M8 2 V6 H12 M1 13 L6 8 M6 12 V8 H2" : "M8 6 L13 1 M9 1 H13 V5 M6 8 L1 13 M5 13 H1 V9"} /></svg></button>
    </figcaption>
    ${explained && html`<p class="small quiet">${guide.text}${guide.healthy && html` <b>Healthy:</b> ${guide.healthy}.`}</p>`}
    <div class="readout" ref=${readout}></div>
    <div class="canvas" style=${{ height: `${wide ? TALL : HEIGHT}px` }}>
      ${near && html`<${Lines} name=${name} lines=${lines} weight=${weight} logarithmic=${logarithmic} height=${wide ? TALL : HEIGHT} readout=${readout} />`}
    </div></figure>`;
}

/** Whether an element is in or near the window; once it was, it stays so. Charts far down are drawn when reached. */
function useNear(reference) {
  const [near, setNear] = useState(false);
  useEffect(() => {
    const watch = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && setNear(true), { rootMargin: "300px" });
    watch.observe(reference.current);
    return () => watch.disconnect();
  }, []);
  return near;
}

function Lines({ name, lines, weight, logarithmic, height, readout }) {
  const frame = useRef(null);
  const plot = useRef(null);
  const dark = useDark();
  const table = useMemo(() => columnsOf(lines, weight, logarithmic), [lines, weight, logarithmic]);
  const current = useRef(null);
  current.current = { lines, table };
  const shape = lines.map((line) => `${line.label} ${line.colour} ${Boolean(line.low)}`).join("|");
  useLayoutEffect(() => {
    const tell = (index) => readout.current && showValues(readout.current, current.current, index);
    const options = optionsOf(lines, { smooth: weight > 0, logarithmic, isShare: SHARES.test(name), width: frame.current.clientWidth, height, tell });
    plot.current = new Plot(options, flat(table, lines, weight > 0), frame.current);
    frame.current.querySelector("canvas")?.setAttribute("aria-label", `Curve of ${name}`);
    const resize = new ResizeObserver(() => plot.current?.setSize({ width: frame.current.clientWidth, height }));
    resize.observe(frame.current);
    return () => {
      resize.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [shape, weight > 0, logarithmic, height, dark]);
  useEffect(() => {
    if (plot.current) renew(plot.current, flat(table, lines, weight > 0));
    if (readout.current) showValues(readout.current, current.current, null);
  }, [table]);
  return html`<div class="plot" ref=${frame}></div>`;
}

// New data keep the part of the steps that the reader has zoomed to; else the scales follow them.
function renew(plot, data) {
  const { min, max } = plot.scales.x;
  const steps = plot.data[0];
  const zoomed = steps.length > 1 && (min > steps[0] || max < steps.at(-1));
  plot.setData(data, !zoomed);
  if (zoomed) plot.redraw();
}

function useDark() {
  const query = useMemo(() => matchMedia("(prefers-color-scheme: dark)"), []);
  const [dark, setDark] = useState(query.matches);
  useEffect(() => {
    const follow = () => setDark(query.matches);
    query.addEventListener("change", follow);
    return () => query.removeEventListener("change", follow);
  }, []);
  return dark;
}

// uPlot wants plain columns: the steps, then for each line its raw values (if smoothed), its line, and the interval.
function flat({ x, columns }, lines, smooth) {
  const found = [x];
  columns.forEach((column, index) => {
    if (smooth && !lines[index].reference) found.push(column.raw);
    found.push(column.shown);
    if (column.low) found.push(column.low, column.high);
  });
  return found;
}

function optionsOf(lines, { smooth, logarithmic, isShare, width, height, tell }) {
  const series = [{}];
  const bands = [];
  for (const line of lines) {
    const drawn = { spanGaps: true, points: { size: 4 } };
    if (smooth && !line.reference) series.push({ ...drawn, stroke: `${line.colour}55`, width: 1, points: { show: false } });
    series.push({ ...drawn, stroke: line.colour, width: 2, dash: line.reference ? [5, 4] : undefined, points: { show: onlyFew, size: 5, fill: line.colour } });
    if (line.low) {
      bands.push({ series: [series.length + 1, series.length], fill: `${line.colour}26` });
      // The band of a few seeds can be wide at single steps: it must not set the scale of what is compared with it.
      const edge = { ...drawn, stroke: "transparent", width: 0, points: { show: false }, auto: !line.reference };
      series.push(edge, edge);
    }
  }
  const style = getComputedStyle(document.documentElement);
  const soft = style.getPropertyValue("--soft").trim();
  const line = style.getPropertyValue("--line").trim();
  const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  return {
    width,
    height,
    series,
    bands,
    legend: { show: false },
    padding: [8, 10, 0, 0],
    scales: { x: { time: false }, y: { distr: logarithmic ? 3 : 1, range: isShare && !logarithmic ? [-0.03, 1.03] : undefined } },
    axes: [{ ...axis, size: 26, grid: { show: false }, incrs: WHOLE_STEPS }, { ...axis, size: 52, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : figure(tick))) }],
    cursor: { sync: { key: "curves" }, drag: { x: true, y: false }, points: { size: 6 } },
    hooks: { setCursor: [(plot) => tell(plot.cursor.idx ?? null)], draw: [(plot) => drawWhiskers(plot, lines, smooth)] },
  };
}

// A line with a few points far apart, such as evaluations, shows them as dots.
function onlyFew(plot, index) {
  return numbersIn(plot.data[index]) <= FEW;
}

function numbersIn(values) {
  return values.reduce((count, value) => count + (value !== null), 0);
}

// The interval of each of a few points as an upright line: a band needs two neighbours to be seen.
function drawWhiskers(plot, lines, smooth) {
  let index = 0;
  for (const line of lines) {
    index += smooth && !line.reference ? 2 : 1;
    if (!line.low) continue;
    const [low, high] = [plot.data[index + 1], plot.data[index + 2]];
    index += 2;
    if (line.reference || numbersIn(low) > FEW) continue;
    plot.ctx.strokeStyle = line.colour;
    plot.ctx.lineWidth = 1.5 * devicePixelRatio;
    plot.ctx.beginPath();
    plot.data[0].forEach((step, place) => {
      if (low[place] === null || high[place] === null) return;
      const x = plot.valToPos(step, "x", true);
      plot.ctx.moveTo(x, plot.valToPos(low[place], "y", true));
      plot.ctx.lineTo(x, plot.valToPos(high[place], "y", true));
    });
    plot.ctx.stroke();
  }
}

// The values under the cursor, or the last ones. Written straight into the page: it follows each move of the mouse.
function showValues(element, { lines, table }, index) {
  const step = index === null ? null : table.x[index];
  const parts = lines.map((line, number) => {
    const column = table.columns[number];
    const place = index ?? column.raw.findLastIndex((value) => value !== null);
    const value = column.raw[place] ?? null;
    const ends = column.low && !line.reference && value !== null && column.low[place] !== null ? ` [${figure(column.low[place])}, ${figure(column.high[place])}]` : "";
    const item = document.createElement("span");
    item.style.setProperty("--dot", line.colour);
    item.title = visible(line.label);
    item.textContent = `${figure(value)}${ends}`;
    return item;
  });
  const when = document.createElement("i");
  when.textContent = step === null ? "last" : `step ${step}`;
  element.replaceChildren(when, ...parts);
}
