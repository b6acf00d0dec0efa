// Errors: groups, and one of them with its stack, its course and who had it.

import { addressOf, ago, api, chart, empty, facts, h, number, objects, refuse, show, sources, table, textOf, time, waiting } from "./frame.js";
import { Question, valueWords } from "./question.js";

const place = (id) => document.getElementById(id);
const form = place("form");
let asking = null;
let shown = ""; // the question whose groups are there
const question = new Question(form, { filters: place("filters"), onChange: ask });
place("add").addEventListener("click", () => question.add());
question.begin();

async function ask(values) {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  const { error: id, ...query } = values;
  one(id, query, signal);
  if (shown === JSON.stringify(query)) return;
  const done = waiting(place("result"));
  try {
    const found = await api("/api/errors", { query, signal });
    if (signal.aborted) return;
    shown = JSON.stringify(query);
    const row = sources(found.sql, addressOf("/api/errors", query));
    if (!found.rows.length) {
      show(place("result"), empty("No errors in this time.", "That is good news, if your app reports them: Nucleus' trackError does."), row);
      return;
    }
    show(place("result"), table([
      { title: "Error", cell: (error) => h("button", { type: "button", class: "link", onclick: () => open(error.error) },
        h("strong", {}, error.type), error.message && error.message !== error.type ? `: ${error.message}` : "") },
      { title: "Where", cell: (error) => h("code", {}, error.frame) },
      { title: "Events", numeric: true, cell: (error) => number(error.events) },
      { title: "People", numeric: true, cell: (error) => number(error.people) },
      { title: "First", cell: (error) => ago(error.first) },
      { title: "Last", cell: (error) => ago(error.last) },
    ], objects(found), { caption: `${time(found.since)} to ${time(found.until)}`, onRow: (error) => open(error.error) }), row);
  } catch (error) {
    refuse(place("result"), error);
  } finally {
    done();
  }
}

function open(id) {
  question.put({ error: id });
  place("one").scrollIntoView();
}

async function one(id, asked, signal) {
  const card = place("one");
  card.hidden = !id;
  if (!id) { show(card); return; }
  const query = { ...asked, error: id };
  const close = h("button", { type: "button", class: "plain", onclick: () => question.put({ error: "" }) }, "Close");
  const done = waiting(card);
  try {
    const found = await api("/api/errors/one", { query, signal });
    if (signal.aborted) return;
    const samples = objects(found.samples);
    const sample = samples[0];
    const picture = h("div");
    const body = h("div", { class: "stack" });
    const pick = (at) => show(body, sampleOf(samples[at]));
    show(card,
      h("div", { class: "row apart middle" }, h("h2", {}, `${sample.type}${sample.message ? `: ${sample.message}` : ""}`), close),
      h("p", {}, h("code", {}, sample.frame)),
      picture,
      sources(found.over_time.sql, addressOf("/api/errors/one", query)),
      h("div", { class: "pair" },
        h("div", {}, h("h3", {}, "App versions"), table(["Version", "Events", "People"], found.versions.rows.map(([value, events, people]) => [valueWords(value), events, people])), sources(found.versions.sql)),
        h("div", {}, h("h3", {}, "The last of them"), table([
          { title: "When", cell: (row) => ago(row.received_at) },
          { title: "Person", cell: (row) => (row.person_id ? h("a", { href: `/people/${row.person_id}` }, row.person_id.slice(0, 8)) : "nobody") },
          { title: "", cell: (row, at) => h("button", { type: "button", class: "link", onclick: () => pick(at) }, "its stack") },
        ], samples), sources(found.samples.sql))),
      body);
    pick(0);
    const places = new Map(found.over_time.rows.map(([at, events]) => [at, events]));
    chart(picture, { kind: "bar", height: 200, x: found.buckets.map((at) => (at.includes("T") ? time(at) : at)), series: [{ name: "events", y: found.buckets.map((at) => places.get(at) || 0) }], title: "How often", xTitle: found.unit });
  } catch (error) {
    refuse(card, error);
    if (error.name !== "AbortError") card.append(close);
  } finally {
    done();
  }
}

function sampleOf(sample) {
  const flat = (value, path = "") => Object.entries(value || {}).flatMap(([key, one]) =>
    one && typeof one === "object" && !Array.isArray(one) ? flat(one, `${path}${key}.`) : [[`${path}${key}`, textOf(one)]]);
  const more = flat(sample.properties).filter(([key]) => !["stack", "message"].includes(key));
  return [
    h("h3", {}, "Stack"),
    h("pre", { tabindex: 0 }, sample.stack || "none was sent"),
    facts([
      ["Event", h("a", { href: `/events/${sample.event_id}` }, sample.event_id)],
      ["Received", `${time(sample.received_at)}`],
      ["Occurred", `${time(sample.occurred_at)}`],
      ["Account, app", `${sample.account}, ${sample.scope}`],
      ...more.map(([key, value]) => [`properties.${key}`, value]),
      ...flat(sample.context).map(([key, value]) => [`context.${key}`, value]),
    ]),
  ];
}
