// What every page shares: asking the API, building the page, charts, and the address bar as state.
//
// Text from events is put into the page by text nodes and attributes only; nothing here, and nothing
// in a page's script, makes markup of a string.

/** What the API said instead of an answer. */
export class Refusal extends Error {
  constructor(error, remedy, status) {
    super(error);
    this.remedy = remedy || "";
    this.status = status;
  }
}

/** Ask the API. `query` values that are empty are left out, lists are repeated. */
export async function api(path, { query, body, method, signal, text } = {}) {
  const address = addressOf(path, query);
  const init = { method: method || (body === undefined ? "GET" : "POST"), signal, headers: {} };
  if (body !== undefined) {
    init.headers["content-type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(address, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("the console does not answer", "is headwater serve still running?", 0);
  }
  if (answer.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    throw new Refusal("the session has ended", "sign in again", 401);
  }
  if (!answer.ok) {
    let said = {};
    try { said = await answer.json(); } catch { /* no JSON: the status alone */ }
    throw new Refusal(said.error || `the console answered ${answer.status}`, said.remedy, answer.status);
  }
  return text ? answer.text() : answer.json();
}

/** Ask for JSON lines: `onLine` gets each as it comes. */
export async function lines(path, { body, onLine }) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Refusal(said.error || `the console answered ${answer.status}`, said.remedy, answer.status);
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    rest += value || "";
    const cut = rest.split("\n");
    rest = done ? "" : cut.pop();
    for (const line of cut) if (line) onLine(JSON.parse(line));
    if (done) return;
  }
}

/** A path with a query string; empty values are left out. */
export function addressOf(path, query) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query || {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") asked.append(name, one);
    }
  }
  const text = asked.toString();
  return text ? `${path}?${text}` : path;
}

const SVG = new Set(["svg", "path", "g", "line", "polyline", "rect", "title"]);

/** An element. Text children become text nodes; null, undefined and false are left out; `on…` are
 * listeners; `data` and `style` are objects. */
export function h(tag, attributes, ...children) {
  const element = SVG.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) {
      if (typeof value !== "function") throw new TypeError(`${name} is no function`);
      element.addEventListener(name.slice(2), value);
    } else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name === "href" && !/^(\/(?!\/)|#|\?|https:\/\/|blob:)/.test(value)) throw new TypeError("no address of ours");
    else if (["value", "checked", "disabled", "selected", "open", "hidden"].includes(name) && name in element) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Put these in the place of what is there. */
export function show(place, ...nodes) {
  place.replaceChildren();
  add(place, nodes);
  return place;
}

/** Say what was refused, and what to do. */
export function refuse(place, error) {
  if (error.name === "AbortError") return;
  show(place, h("div", { class: "refusal", role: "alert" },
    h("strong", {}, error.message), error.remedy ? h("p", {}, error.remedy) : null));
}

/** Say that something is on its way, once it has taken a while. */
export function waiting(place, words = "Asking …") {
  const timer = setTimeout(() => place.setAttribute("aria-busy", "true"), 150);
  if (!place.hasChildNodes()) show(place, h("p", { class: "muted" }, words));
  return () => { clearTimeout(timer); place.removeAttribute("aria-busy"); };
}

/** Nothing to show: why, and what to do. */
export function empty(what, todo) {
  return h("div", { class: "empty" }, h("p", {}, what), todo ? h("p", { class: "muted" }, todo) : null);
}

// --- numbers and times ----------------------------------------------------------------------------

const COUNT = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const number = (n) => (n === null || n === undefined ? "–" : COUNT.format(n));
export const short = (n) => (n === null || n === undefined ? "–" : SHORT.format(n));
export const percent = (share) => (Number.isFinite(share) ? `${(100 * share).toFixed(share && share < 0.1 ? 1 : 0)} %` : "–");

/** A time of the API (ISO 8601, UTC, with or without its Z) as a Date. */
export function moment(iso) {
  const text = String(iso).replace(" ", "T");
  return new Date(/(Z|[+-]\d\d:?\d\d)$/.test(text) || !text.includes("T") ? text : `${text}Z`);
}

/** In the reader's own time zone. */
export function time(iso) {
  if (!iso) return "–";
  const at = moment(iso);
  if (Number.isNaN(at.getTime())) return String(iso);
  const two = (n) => String(n).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** A <time> element that says how long ago, with the whole of it as its title. */
export function ago(iso) {
  if (!iso) return h("span", { class: "muted" }, "–");
  const seconds = (Date.now() - moment(iso).getTime()) / 1000;
  return h("time", { datetime: String(iso), title: `${time(iso)} here, ${iso} UTC` },
    seconds < 0 ? time(iso) : seconds < 5 ? "now" : `${duration(seconds)} ago`);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(Number(seconds))) return "–";
  if (seconds < 0.001) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${(seconds * 1e3).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 60) return `${seconds < 10 && seconds % 1 ? seconds.toFixed(1) : Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
  return `${at && n < 10 ? n.toFixed(1) : Math.round(n)} ${units[at]}`;
}

/** An identifier's value for the eye: where several parts make one, they stand apart. */
export const readable = (value) => String(value).replace(/\u001f/g, " · ");

/** Any value of an answer as text: what is nested as JSON, nothing as an empty text. */
export function textOf(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

// --- tables ---------------------------------------------------------------------------------------

/** A table. `columns`: texts, or {title, numeric, cell(row, index), key}; `rows`: lists or objects.
 * A cell that is a Node is put in as it is, anything else as text. */
export function table(columns, rows, { caption, onRow } = {}) {
  const heads = columns.map((one) => (typeof one === "string" ? { title: one } : one));
  const body = rows.map((row, index) => h("tr", onRow ? {
    tabindex: 0, class: "pick", onclick: (event) => { if (!event.target.closest("a,button")) onRow(row, index); },
    onkeydown: (event) => { if (event.key === "Enter" && event.target === event.currentTarget) onRow(row, index); },
  } : {}, heads.map((head, place) => {
    let value = head.cell ? head.cell(row, index) : Array.isArray(row) ? row[place] : row[head.key ?? head.title];
    const numeric = head.numeric ?? typeof value === "number";
    if (typeof value === "number" && !head.cell) value = number(value);
    return h("td", { class: numeric ? "num" : null, data: { title: head.title } }, value instanceof Node ? value : textOf(value));
  })));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption || "table" },
    h("table", {}, caption ? h("caption", {}, caption) : null,
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col", class: head.numeric ? "num" : null }, head.title)))),
      h("tbody", {}, body)));
}

/** Name and value, one below the other. */
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, value]) => [
    h("dt", {}, name), h("dd", {}, value instanceof Node || Array.isArray(value) ? value : textOf(value))]));
}

export function badge(words, state = "") {
  return h("span", { class: `badge ${state}` }, words);
}

export function tile(name, value, more) {
  return h("div", { class: "tile" }, h("span", { class: "muted" }, name), h("strong", {}, value), more ? h("small", { class: "muted" }, more) : null);
}

/** Rows of {columns, rows} as objects. */
export function objects(answer) {
  return answer.rows.map((row) => Object.fromEntries(answer.columns.map((name, place) => [name, row[place]])));
}

/** The row under a figure: its SQL, its JSON, its CSV, a link. `json` is the API's address. */
export function sources(sql, json) {
  return h("p", { class: "sources" },
    sql ? h("a", { href: addressOf("/sql", { sql, account: currentAccount() }) }, "SQL") : null,
    json ? h("a", { href: json }, "JSON") : null,
    sql ? h("a", { href: addressOf("/api/query", { sql, format: "csv" }) }, "CSV") : null,
    h("button", { class: "plain", type: "button", onclick: async (event) => {
      const button = event.currentTarget;
      try { await navigator.clipboard.writeText(location.href); button.textContent = "Copied"; }
      catch { button.textContent = location.href; }
    } }, "Link"));
}

// --- the address bar as state ---------------------------------------------------------------------

/** Keep a form and the address bar in step: links can be shared, the back button works. `onChange`
 * gets the values (texts; lists for fields that occur several times), now and after each change. */
export function bindQuery(form, onChange, { live = true } = {}) {
  const read = () => {
    const values = {};
    for (const [name, value] of new FormData(form)) {
      if (name in values) values[name] = [values[name], value].flat();
      else values[name] = value;
    }
    return values;
  };
  const fill = () => {
    const asked = new URLSearchParams(location.search);
    for (const field of form.elements) {
      if (!field.name) continue;
      const given = asked.getAll(field.name);
      if (field.type === "checkbox" || field.type === "radio") {
        if (asked.has(field.name)) field.checked = given.includes(field.value);
        else if (asked.size) field.checked = field.defaultChecked;
      } else if (given.length) {
        if (field.tagName === "SELECT" && ![...field.options].some((one) => one.value === given[0])) {
          field.append(h("option", { value: given[0] }, given[0]));
        }
        field.value = given[0];
      } else if (field.tagName === "SELECT") {
        field.value = ([...field.options].find((one) => one.defaultSelected) || field.options[0] || {}).value ?? "";
      } else field.value = field.defaultValue;
    }
  };
  const changed = (push) => {
    const values = read();
    const kept = { ...values };
    const account = currentAccount();
    if (account) kept.account = account;
    const address = addressOf(location.pathname, kept);
    if (push && address !== location.pathname + location.search) history.pushState(null, "", address);
    onChange(values);
  };
  form.addEventListener("submit", (event) => { event.preventDefault(); changed(true); });
  if (live) form.addEventListener("change", () => changed(true));
  addEventListener("popstate", () => { fill(); changed(false); });
  fill();
  changed(false);
  return { refresh: () => changed(true), values: read };
}

/** The account that the pages are kept to, "" for all. */
export function currentAccount() {
  return new URLSearchParams(location.search).get("account") || "";
}

export const mayChange = document.body.dataset.admin === "yes";

// --- charts ---------------------------------------------------------------------------------------

let plotly = null;

function loadPlotly() {
  plotly ||= new Promise((done, failed) => {
    document.head.append(h("script", { src: document.body.dataset.plotly, onload: () => done(window.Plotly), onerror: () => failed(new Refusal("the chart library cannot be loaded", "reload the page")) }));
  });
  return plotly;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
/** For what stands for the rest. */
export const mutedColour = () => colour("--muted");
export const seriesColour = (place) => colour(`--series-${(place % 8) + 1}`);

/** A dialect has one colour on every page. */
const DIALECTS = ["vaix", "orbee", "nucleus", "vibetrace", "gamooga"];
export const dialectColour = (name) => seriesColour(DIALECTS.indexOf(name) < 0 ? 5 : DIALECTS.indexOf(name));

const drawn = new Set();

/** A chart: {kind: "line"|"bar"|"stacked", x: [...], series: [{name, y, dashed?, colour?}], title, unit,
 * height?, moving?, xTitle?, onPick?(x)}; x are texts or ISO times. The same figures stand behind it
 * as a table, for those who cannot see the picture, and for the keyboard. */
export async function chart(place, spec) {
  let holder = place.querySelector(":scope > .chart");
  if (!holder) {
    holder = h("div", { class: "chart" });
    const figures = spec.moving ? null : h("details", { class: "figures" }, h("summary", {}, "As a table"));
    figures?.addEventListener("toggle", () => { if (figures.open) fillFigures(figures, place.spec); });
    show(place, holder, figures);
  }
  place.spec = spec;
  const figures = place.querySelector(":scope > .figures");
  if (figures?.open) fillFigures(figures, spec);
  holder.setAttribute("role", "img");
  holder.setAttribute("aria-label", spec.title || "chart");
  holder.style.setProperty("min-height", `${spec.height || 280}px`);
  const library = await loadPlotly();
  if (place.spec !== spec) return;
  draw(library, holder, spec);
  drawn.add(place);
}

function fillFigures(figures, spec) {
  const most = 500;
  const rows = spec.x.slice(0, most).map((x, at) => [String(x), ...spec.series.map((one) => one.y[at] ?? null)]);
  show(figures, h("summary", {}, "As a table"),
    table([spec.xTitle || "", ...spec.series.map((one) => ({ title: one.name, numeric: true }))], rows, { caption: spec.title }),
    spec.x.length > most ? h("p", { class: "muted" }, `the first ${most} of ${number(spec.x.length)}`) : null);
}

// Plotly reads a little HTML in names and labels: what came with an event must stay text there too.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function draw(library, holder, spec) {
  const bars = spec.kind !== "line";
  const times = spec.x.length > 0 && /^\d{4}-\d\d-\d\d([T ]|$)/.test(spec.x[0]);
  const x = times ? spec.x : spec.x.map(plain);
  const data = spec.series.map((one, place) => ({
    type: bars ? "bar" : "scatter",
    mode: "lines",
    x,
    y: one.y,
    name: plain(one.name),
    line: { color: one.colour || seriesColour(place), width: 2, dash: one.dashed ? "dot" : "solid", shape: spec.shape || "linear" },
    marker: { color: one.colour || seriesColour(place), opacity: one.dashed ? 0.45 : 1 },
    hovertemplate: `%{y:,}${spec.unit ? ` ${plain(spec.unit)}` : ""}<extra>${plain(one.name)}</extra>`,
  }));
  const grid = colour("--line");
  const stacked = spec.kind === "stacked";
  const most = Math.max(0, ...spec.x.map((_, at) => spec.series.reduce(
    (sum, one) => (stacked ? sum + (one.y[at] || 0) : Math.max(sum, one.y[at] || 0)), 0)));
  const few = !spec.share && spec.unit === undefined && most <= 4; // whole numbers on the axis
  const layout = {
    barmode: spec.kind === "stacked" ? "stack" : "group",
    bargap: 0.15,
    height: spec.height || 280,
    margin: { l: 48, r: 12, t: 8, b: spec.series.length > 1 ? 64 : 40 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--muted"), family: "system-ui, sans-serif", size: 12 },
    hovermode: times || spec.kind !== "bar" ? "x unified" : "closest",
    hoverlabel: { bgcolor: colour("--card"), bordercolor: grid, font: { color: colour("--fg") } },
    xaxis: { gridcolor: grid, linecolor: grid, type: times ? "date" : "category", fixedrange: true, automargin: true, range: spec.range },
    yaxis: { dtick: few ? 1 : undefined, gridcolor: grid, zerolinecolor: grid, rangemode: "tozero", fixedrange: true, automargin: true, tickformat: spec.share ? ".0%" : "~s" },
    showlegend: spec.series.length > 1,
    legend: { orientation: "h", y: -0.28, x: 0, traceorder: "normal" },
  };
  library.react(holder, data, layout, { displayModeBar: false, responsive: true });
  if (spec.onPick && !holder.picks) {
    holder.picks = true;
    holder.on("plotly_click", (event) => holder.parentNode.spec.onPick(event.points[0]?.x));
  }
}

// --- the frame itself -----------------------------------------------------------------------------

function redraw() {
  for (const place of drawn) {
    if (!place.isConnected) drawn.delete(place);
    else loadPlotly().then((library) => draw(library, place.querySelector(":scope > .chart"), place.spec));
  }
}

document.getElementById("theme")?.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("headwater-theme", root.dataset.theme); } catch { /* not kept, then */ }
  redraw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

// On a phone the pages are a row that scrolls.
document.querySelector("nav a[aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

const accounts = document.getElementById("account");
if (accounts) {
  const account = currentAccount();
  accounts.value = account;
  accounts.addEventListener("change", () => {
    const asked = new URLSearchParams(location.search);
    if (accounts.value) asked.set("account", accounts.value);
    else asked.delete("account");
    location.search = asked.toString();
  });
  if (account) for (const link of document.querySelectorAll("nav a")) link.href = addressOf(link.getAttribute("href"), { account });
}
