// Explore: a figure over time, broken down, and the largest groups beside it.

import { addressOf, api, chart, dialectColour, mutedColour, empty, h, number, percent, refuse, show, sources, table, tile, time, waiting } from "./frame.js";
import { Question, valueWords } from "./question.js";

const place = (id) => document.getElementById(id);
const form = place("form");
const TOPS = [
  ["Names", "name"], ["Pages", "page"], ["Countries", "country"], ["Devices", "device"], ["Browsers", "browser"], ["Systems", "os"],
];
const TOPS_SHOWN = 8;
let asking = null;

const question = new Question(form, { filters: place("filters"), defaults: { by: "dialect" }, onChange: ask });
place("add").addEventListener("click", () => question.add());
question.begin();

async function ask(query) {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  place("of").hidden = ["events", "people", "sessions"].includes(query.measure);
  if (!place("of").hidden && !query.of) {
    show(place("tiles"));
    show(place("chart"), empty(`The ${query.measure} of what?`, "Name a field in “Of”, such as properties.total."));
    show(place("sums"));
    show(place("chart-sources"));
    show(place("tops"));
    form.elements.of.focus();
    return;
  }
  if (place("of").hidden) delete query.of;
  const done = waiting(place("chart"));
  try {
    const found = await api("/api/explore", { query, signal });
    if (signal.aborted) return;
    draw(found, query);
    tops(query, found, signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    refuse(place("chart"), error);
    for (const id of ["tiles", "sums", "chart-sources", "tops"]) show(place(id));
  } finally {
    if (!signal.aborted) done();
  }
}

const LABEL = { events: "Events", people: "People", sessions: "Sessions" };
const measured = (query) => LABEL[query.measure] || `${query.measure[0].toUpperCase()}${query.measure.slice(1)} of ${query.of}`;
const figure = (n) => (typeof n === "number" && !Number.isInteger(n) ? number(Number(n.toPrecision(6))) : number(n));
/** A moment of the answer in the reader's time zone; a day is a day. */
const point = (at) => (at.includes("T") ? time(at) : at);

function draw(found, query) {
  const words = measured(query);
  const range = `${time(found.since)} to ${time(found.until)}`;
  place("h-chart").textContent = `${words} over time${query.by ? `, by ${query.by}` : ""}`;
  const before = found.before;
  const change = before && before.total ? (found.total - before.total) / before.total : null;
  show(place("tiles"),
    tile(words, figure(found.total), range),
    before && tile("The time before", figure(before.total), `${time(before.since)} to ${time(before.until)}`),
    before && tile("Change", change === null ? "–" : `${change > 0 ? "+" : ""}${percent(change)}`));
  show(place("chart-sources"), sources(found.sql, addressOf("/api/explore", query)));
  if (!found.rows.length) {
    const filtered = (query.where || []).length > 0;
    show(place("chart"), empty("No event is in this.", filtered
      ? "Take a condition away, or choose a longer time."
      : "Choose a longer time, or send events: Try it shows how."));
    show(place("sums"));
    return;
  }
  const now = seriesOf(found, query.by);
  const then = before ? seriesOf(before, query.by) : [];
  const series = now.map((one) => ({ ...one, name: query.by ? one.name : "this time" }));
  for (const one of then) {
    const beside = now.find((other) => other.key === one.key);
    if (beside || !query.by) series.push({ ...one, name: query.by ? `${one.name}, before` : "the time before", dashed: true, colour: beside?.colour });
  }
  const x = found.buckets.map(point);
  for (const one of series) one.y = x.map((_, at) => one.y[at] ?? null);
  if (!before && !query.by) series[0].name = words;
  const few = x.length < 3;
  chart(place("chart"), { kind: form.elements.as.value === "stacked" ? "stacked" : few ? "bar" : "line", x, series, title: place("h-chart").textContent, xTitle: found.unit, height: 320 + (innerWidth < 760 ? 20 * series.length : 0) });
  if (!query.by) { show(place("sums")); return; }
  const whole = ["events", "sum"].includes(query.measure);
  show(place("sums"), whole ? table([
    { title: query.by, cell: (one) => one.other || one.value === undefined ? one.name : pick(query.by, one.value) },
    { title: words, numeric: true, cell: (one) => figure(one.sum) },
    { title: "Share", numeric: true, cell: (one) => percent(found.total ? one.sum / found.total : NaN) },
    ...(before ? [{ title: "Before", numeric: true, cell: (one) => figure(then.find((other) => other.key === one.key)?.sum ?? 0) }] : []),
  ], now, { caption: "over the whole time" }) : h("p", { class: "muted small" }, `Each point counts its own ${query.measure}: who comes in two of them is in both, so the points do not add up to the total.`));
}

/** The lines: every bucket has a figure, 0 for counts where nothing came. */
function seriesOf(found, by) {
  const places = new Map(found.buckets.map((at, nth) => [at, nth]));
  const last = found.columns.length - 1;
  const counts = ["events", "people", "sessions", "values", "sum"].includes(found.columns[last]);
  const lines = new Map();
  for (const row of found.rows) {
    const [at, value, other] = by ? row : [row[0], undefined, 0];
    const key = other ? "other" : value === null ? "none" : `=${value}`;
    if (!lines.has(key)) {
      lines.set(key, {
        key, value, other, sum: 0,
        name: other ? "all others" : by ? valueWords(value) : "",
        y: found.buckets.map(() => (counts ? 0 : null)),
        colour: other ? mutedColour() : by === "dialect" ? dialectColour(value) : undefined,
      });
    }
    const line = lines.get(key);
    line.y[places.get(at)] = row[last];
    line.sum += row[last] || 0;
  }
  const weight = (one) => (one.other ? -2 : one.key === "none" ? -1 : one.sum);
  return [...lines.values()].sort((one, other) => weight(other) - weight(one));
}

/** A value as a button that keeps the page to it. */
function pick(field, value) {
  return h("button", { type: "button", class: "link", title: `only where ${field} is this`, onclick: () =>
    question.add(value === null ? [field, "not_set"] : [field, "is", value]) }, valueWords(value));
}

function tops(query, found, signal) {
  const shared = { measure: query.measure, of: query.of, where: query.where, account: query.account, time: query.time, zone: query.zone, since: found.since, until: found.until };
  const measure = query.measure;
  show(place("tops"), TOPS.map(([title, by]) => {
    const body = h("div");
    const asked = { ...shared, by, limit: TOPS_SHOWN, set_only: ["page", "country"].includes(by) };
    const address = addressOf("/api/explore/top", asked);
    const done = waiting(body);
    api("/api/explore/top", { query: asked, signal }).then((answer) => {
      const most = Math.max(...answer.rows.map((row) => row[1]), 0);
      show(body, answer.rows.length ? table([
        { title, cell: (row) => pick(by, row[0]) },
        { title: measure, numeric: true, cell: (row) => h("span", {}, figure(row[1]), bar(row[1], most)) },
      ], answer.rows) : empty(`No ${title.toLowerCase()}.`, WHY[by]), sources(answer.sql, address));
    }).catch((error) => refuse(body, error)).finally(done);
    return h("section", { class: "card" }, h("div", { class: "row apart middle" }, h("h2", {}, title),
      h("button", { type: "button", class: "plain small", onclick: () => { question.put({ by }); place("h-chart").scrollIntoView(); } }, "Over time")), body);
  }));
}

const WHY = {
  page: "Pages come from page views with a url, and from VAIX events with a page.",
  country: "Countries need a country file: see enrich.country_file in the configuration.",
};

const bar = (n, most) => h("span", { class: "share", "aria-hidden": "true", style: { width: `${most > 0 ? Math.max(1, Math.round((60 * n) / most)) : 0}px` } });
