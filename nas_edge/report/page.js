"use strict";
// Shows a report (see content.py). All that stands in it becomes text nodes and attributes, never markup.
(() => {

const FEW_ROWS = 20, MORE_ROWS = 250;
const tableStates = new Map(); // by table: how it is sorted and how much of it is shown; survives a refresh
const openSections = new Set();
const plots = new Map(); // by name: {plot, text, figure, element, view, finalize}; kept over a refresh, with what was picked
const tooltip = document.getElementById("vg-tooltip-element"); // of all plots
let report = null;

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

// The same rules as content.text_of.
function textOf(value, form) {
  if (value === null) return "–";
  if (value === true) return "yes";
  if (value === false) return "no";
  if (typeof value !== "number" || !form) return String(value);
  if (form === "d") return value.toFixed(0);
  const digits = Number(form.match(/\.(\d+)/)[1]);
  return form.endsWith("%") ? `${(100 * value).toFixed(digits)}%` : value.toFixed(digits);
}

const rowCount = (table) => (table.columns.length ? table.columns[0].values.length : 0);

// ---------------------------------------------------------------- tables

function showTable(table) {
  const columns = table.columns.filter((column) => column.shown && column.values.some((value) => value !== null));
  const count = rowCount(table);
  if (!tableStates.has(table.name)) tableStates.set(table.name, { key: null, descending: false, rows: FEW_ROWS });
  const state = tableStates.get(table.name);
  const body = make("tbody");
  const more = make("button", { class: "more", type: "button", onclick: () => { state.rows += MORE_ROWS; fill(); } });
  const heads = columns.map((column) =>
    make("th", { scope: "col", class: column.form ? "number" : null },
      make("button", { type: "button", onclick: () => sortBy(column) }, column.title)));

  function sortBy(column) {
    // Of numbers one wants to see the largest first, of texts the first of the alphabet.
    state.descending = state.key === column.key ? !state.descending : column.form !== "";
    state.key = column.key;
    fill();
  }

  function order() {
    const rows = Array.from({ length: count }, (_, i) => i);
    const column = columns.find((each) => each.key === state.key);
    if (!column) return rows;
    const values = column.values, sign = state.descending ? -1 : 1;
    return rows.sort((a, b) => {
      const x = values[a], y = values[b];
      if (x === null || y === null) return (x === null) - (y === null); // what is missing comes last either way
      return sign * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
    });
  }

  function cell(column, row) {
    const value = column.values[row], text = textOf(value, column.form);
    if (column.form) return make("td", { class: "number" }, text);
    return make("td", { class: column.key === "architecture" ? "code" : "text" }, text);
  }

  function fill() {
    heads.forEach((head, i) => head.setAttribute("aria-sort",
      columns[i].key !== state.key ? "none" : state.descending ? "descending" : "ascending"));
    body.replaceChildren(...order().slice(0, state.rows).map((row) =>
      make("tr", null, columns.map((column) => cell(column, row)))));
    more.hidden = state.rows >= count;
    more.textContent = `show more (${(count - state.rows).toLocaleString("en")} left)`;
  }

  fill();
  const grid = make("table", { id: `table-${table.name}` },
    table.title ? make("caption", null, table.title) : null, make("thead", null, make("tr", null, heads)), body);
  const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": table.title || table.name }, grid);
  return make("div", { class: "table" }, scroll, more);
}

// ---------------------------------------------------------------- plots

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// A specification with the page's colours in place of `$names`.
function coloured(spec) {
  return JSON.parse(JSON.stringify(spec), (_, value) =>
    typeof value === "string" && value.startsWith("$") ? colour(value.slice(1)) || value : value);
}

function theme() {
  const [ink, soft, line] = ["ink", "soft", "line"].map(colour);
  const title = { titleColor: ink, titleFontSize: 12, titleFontWeight: "normal", labelFontSize: 12 };
  return {
    background: "transparent",
    font: getComputedStyle(document.body).fontFamily,
    view: { stroke: null },
    axis: { ...title, labelColor: soft, gridColor: line, domainColor: line, tickColor: line, titlePadding: 8 },
    axisX: { tickCount: { expr: "ceil(width / 90)" }, labelOverlap: "greedy", labelFlush: false },
    legend: { ...title, labelColor: ink, symbolSize: 100, rowPadding: 4, columnPadding: 16, offset: 8 },
    text: { fill: ink, fontSize: 12 },
  };
}

function recordsOf(table) {
  const { columns } = table;
  return Array.from({ length: rowCount(table) }, (_, i) => {
    const record = {};
    for (const column of columns) record[column.key] = column.values[i];
    return record;
  });
}

function namesIn(spec, found = new Set()) {
  if (spec && typeof spec === "object") {
    if (spec.data && spec.data.name) found.add(spec.data.name);
    Object.values(spec).forEach((part) => namesIn(part, found));
  }
  return found;
}

function datasetsOf(plot) {
  const names = namesIn(plot.spec);
  const tables = report.sections.flatMap((section) => section.tables).filter((table) => names.has(table.name));
  return Object.fromEntries(tables.map((table) => [table.name, recordsOf(table)]));
}

async function drawPlot(entry) {
  entry.drawing = true;
  const spec = {
    width: "container",
    autosize: { type: "fit-x", contains: "padding" },
    ...coloured(entry.plot.spec),
    datasets: datasetsOf(entry.plot),
  };
  const { view, finalize } = await vegaEmbed(entry.element, spec, {
    mode: "vega-lite", renderer: "canvas", actions: false, config: theme(), defaultStyle: false,
    ast: true, // expressions are interpreted: the page's policy forbids making code of text
    tooltip: { disableDefaultStyle: true },
  });
  Object.assign(entry, { view, finalize });
  entry.element.dataset.drawn = "yes";
}

// Plots are drawn when they come near, so that the page is there at once however much it shows.
const watcher = new IntersectionObserver((sightings) => {
  for (const { isIntersecting, target } of sightings) {
    const entry = [...plots.values()].find(({ element }) => element === target);
    if (isIntersecting && entry && !entry.drawing) drawPlot(entry);
  }
}, { rootMargin: "300px" });

function showPlot(plot) {
  const text = JSON.stringify(plot);
  const known = plots.get(plot.name);
  if (known && known.text === text) {
    if (known.view) {
      Object.entries(datasetsOf(plot)).forEach(([name, records]) => known.view.data(name, records));
      known.view.runAsync();
    }
    return known.figure;
  }
  if (known) forget(known);
  const element = make("div", { class: "plot", id: `plot-${plot.name}`, role: "group", "aria-label": plot.alt });
  element.addEventListener("pointerup", tapped);
  const caption = make("figcaption", null, make("b", null, plot.title), plot.note ? ` ${plot.note}` : "");
  const figure = make("figure", null, caption, element);
  plots.set(plot.name, { plot, text, figure, element, view: null, finalize: null, drawing: false });
  watcher.observe(element);
  return figure;
}

// A finger does not hover, and is larger than a point: a tap looks for the nearest point around it.
function tapped({ pointerType, target, clientX, clientY }) {
  if (pointerType !== "touch") return;
  setTimeout(() => { // once the finger has left, which hides the tooltip
    for (let i = 0; i < 60 && !tooltip.classList.contains("visible"); i += 1) {
      const far = 2.4 * Math.sqrt(i), angle = 2.4 * i; // a spiral over the 18 pixels around
      const place = { clientX: clientX + far * Math.cos(angle), clientY: clientY + far * Math.sin(angle) };
      target.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, ...place }));
    }
  }, 30);
}

function forget(entry) {
  watcher.unobserve(entry.element);
  if (entry.finalize) entry.finalize();
  plots.delete(entry.plot.name);
}

// ---------------------------------------------------------------- networks as pictures

function showLayer(layer) {
  const words = [layer.label, `kernel ${layer.kernel} by ${layer.kernel}`];
  if (layer.expansion) words.push(`expansion ratio ${layer.expansion.toFixed(1)}`);
  if (layer.gated) words.push("squeeze-and-excitation");
  const text = layer.skipped ? "skip" : [`${layer.kernel}×${layer.kernel}`,
    layer.expansion ? ` ×${Number(layer.expansion.toFixed(1))}` : "", layer.gated ? " se" : ""].join("");
  const box = make("div", {
    class: `layer${layer.skipped ? " skipped" : ""}${layer.gated ? " gated" : ""}`,
    role: "listitem",
    title: layer.skipped ? `${layer.label}, skipped` : words.join(", "),
  }, text);
  box.style.setProperty("--tall", layer.skipped ? 1 : Math.min(layer.kernel, 7));
  box.style.setProperty("--wide", (layer.gated ? 2 : 0) + Math.min(layer.expansion || 0, 8));
  if (!layer.skipped) box.style.background = `var(--k${Math.min(layer.kernel, 7)})`;
  return box;
}

function showKey() {
  const example = (kernel, expansion) => showLayer({ label: "", kernel, expansion, gated: false, skipped: false });
  return make("div", { class: "legend", "aria-hidden": "true" },
    "height: kernel size ", example(3, 3), example(5, 3), example(7, 3),
    "width: expansion ratio ", example(3, 6),
    "skipped: ", showLayer({ label: "", skipped: true }));
}

function showDrawing(drawing) {
  const stages = drawing.stages.map((stage) => make("div", { class: "stage" },
    make("div", { class: "about" }, make("b", null, stage.label),
      `${stage.channels} ch, ${stage.size} px${stage.stride > 1 ? `, stride ${stage.stride}` : ""}`),
    make("div", { class: "layers", role: "list" }, stage.layers.map(showLayer))));
  return make("div", { class: "drawing" },
    make("h3", null, drawing.name), make("p", { class: "words" }, drawing.words), ...stages,
    drawing.architecture ? make("p", { class: "code" }, drawing.architecture) : null);
}

// ---------------------------------------------------------------- the page

function showSection(section) {
  const inner = [
    ...section.says.map((sentence) => make("p", null, sentence)),
    ...(section.drawings.length ? [showKey(), make("div", { class: "drawings" }, section.drawings.map(showDrawing))] : []),
    ...section.plots.map(showPlot),
    ...section.tables.filter((table) => table.shown && rowCount(table)).map(showTable),
  ];
  const heading = make("h2", null, section.title);
  if (!section.folded) return make("section", { id: section.key }, heading, inner);
  const fold = make("details", { open: openSections.has(section.key) ? "" : null }, make("summary", null, heading), inner);
  fold.addEventListener("toggle", () => openSections[fold.open ? "add" : "delete"](section.key));
  return make("section", { id: section.key }, fold);
}

function showHeader() {
  const tiles = report.tiles.map((tile) => make("div", null,
    make("dt", null, tile.label), make("dd", { class: "value" }, tile.value), make("dd", { class: "note" }, tile.note)));
  return make("header", null,
    make("div", { class: "name" }, make("h1", null, report.title), make("span", { class: `state ${report.state}` }, report.state)),
    make("p", { class: "headline" }, report.headline),
    tiles.length ? make("dl", { class: "tiles" }, tiles) : null,
    make("nav", { "aria-label": "sections" },
      report.sections.map((section) => make("a", { href: `#${section.key}` }, section.title))));
}

function show(next) {
  report = next;
  const names = new Set(report.sections.flatMap((section) => section.plots.map((plot) => plot.name)));
  [...plots.values()].filter(({ plot }) => !names.has(plot.name)).forEach(forget);
  const main = document.getElementById("report"), place = window.scrollY;
  main.replaceChildren(showHeader(), ...report.sections.map(showSection));
  main.setAttribute("aria-busy", "false");
  if (place) window.scrollTo({ top: place, behavior: "instant" });
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

// Asks the server that the page came from what is new, see serve.py.
async function follow() {
  const news = document.getElementById("news");
  let tag = null;
  const say = (text) => { news.textContent = text; news.hidden = false; };
  for (;;) {
    await new Promise((done) => setTimeout(done, 2000));
    if (document.hidden) continue;
    try {
      const answer = await fetch("content", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
      if (answer.status === 200) {
        tag = answer.headers.get("ETag");
        show(await answer.json());
        say(`as of ${new Date().toLocaleTimeString()}; updating automatically`);
      } else if (answer.status !== 304) say(await answer.text());
    } catch {
      say("the server has stopped; this is its last report");
    }
  }
}

document.addEventListener("pointerdown", () => tooltip.classList.remove("visible"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  [...plots.values()].forEach(forget);
  if (report) show(report);
});
unpack(document.getElementById("content").textContent).then(show);
if (document.getElementById("report").dataset.live === "yes") follow();

})();
