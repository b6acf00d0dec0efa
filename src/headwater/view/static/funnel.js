// Funnels: steps in order, who takes them, and where they stop.

import { addressOf, api, chart, duration, empty, h, number, percent, refuse, show, sources, table, tile, time, waiting } from "./frame.js";
import { Question, valueWords } from "./question.js";

const place = (id) => document.getElementById(id);
const form = place("form");
const STEPS_MAX = 10;
let asking = null;

const question = new Question(form, { filters: place("filters"), steps: place("steps"), onChange: ask });
question.onSuggested = (found) => {
  // Nobody has said which steps: those of a common example, to be changed.
  if (place("steps").children.length) return;
  const names = [...new Set(found.names.rows.map((row) => row[1]))].slice(0, 2);
  show(place("result"), empty("Which steps?", names.length
    ? "Add two or more, in the order in which they are taken."
    : "There are no events in this time: choose a longer one, or send some. Try it shows how."),
  names.length === 2 ? h("p", { class: "row middle" }, h("button", { type: "button", class: "plain", onclick: () => {
    for (const name of names) place("steps").append(question.stepRow([name]));
    question.change();
  } }, `Begin with ${names[0]}, then ${names[1]}`)) : null);
};
place("add").addEventListener("click", () => question.add());
place("add-step").addEventListener("click", () => { if (place("steps").children.length < STEPS_MAX) question.addStep(); });
question.begin();

const stepWords = (step) => {
  const [name, ...filters] = JSON.parse(step);
  const more = filters.map(([field, operator, ...values]) => `${field} ${operator.replace("_", " ")} ${values.join(", ")}`);
  return `${name || "any event"}${more.length ? ` (${more.join("; ")})` : ""}`;
};

async function ask(query) {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  place("add-step").disabled = query.step.length >= STEPS_MAX;
  if (query.step.length < 2) {
    show(place("tiles"));
    show(place("result"), empty(query.step.length ? "One step is no funnel yet." : "Which steps?", "Add two or more, in the order in which they are taken."));
    if (question.suggested) question.onSuggested(question.suggested);
    return;
  }
  const done = waiting(place("result"));
  try {
    const found = await api("/api/funnel", { query, signal });
    if (!signal.aborted) draw(found, query);
  } catch (error) {
    if (error.name !== "AbortError") show(place("tiles"));
    refuse(place("result"), error);
  } finally {
    if (!signal.aborted) done();
  }
}

function draw(found, query) {
  const rows = found.rows.map((row) => Object.fromEntries(found.columns.map((name, at) => [name, row[at]])));
  const names = query.step.map(stepWords);
  const row = sources(found.sql, addressOf("/api/funnel", query));
  if (!rows.length) {
    show(place("tiles"));
    show(place("result"), empty("Nobody took the first step in this time.", "Choose a longer time, or look in Explore what the events are called."), row);
    return;
  }
  const groups = new Map();
  for (const one of rows) {
    const key = query.by ? JSON.stringify(one.value) : "";
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(one);
  }
  const sum = (step) => rows.reduce((all, one) => all + (one.step === step ? one.people : 0), 0);
  const began = sum(1);
  const ended = sum(names.length);
  show(place("tiles"),
    tile("Began", number(began), `${time(found.since)} to ${time(found.until)}`),
    tile("Took every step", number(ended)),
    tile("Conversion", percent(began ? ended / began : NaN)));
  const picture = h("div");
  const lists = [...groups].map(([, steps]) => table([
    { title: "Step", cell: (one) => `${one.step}. ${names[one.step - 1]}` },
    { title: "People", numeric: true, cell: (one) => number(one.people) },
    { title: "", cell: (one) => h("span", { class: "funnelbar", "aria-hidden": "true", style: { width: `${Math.round(140 * (one.of_first ?? 0))}px` } }) },
    { title: "Of all", numeric: true, cell: (one) => percent(one.of_first ?? NaN) },
    { title: "Of the step before", numeric: true, cell: (one) => (one.step === 1 ? "" : percent(one.of_before ?? NaN)) },
    { title: "Stopped before it", numeric: true, cell: (one) => (one.step === 1 ? "" : number(one.dropped)) },
    { title: "Median time", numeric: true, cell: (one) => (one.median_seconds === null ? "" : duration(one.median_seconds)) },
  ], steps, { caption: query.by ? `${query.by}: ${valueWords(steps[0].value)}` : "each step" }));
  show(place("result"), picture, lists, row);
  const series = [...groups.values()].map((steps) => ({
    name: query.by ? valueWords(steps[0].value) : "people", y: steps.map((one) => one.people),
  }));
  chart(picture, { kind: "bar", x: names.map((name, at) => `${at + 1}. ${name}`), series, title: "People at each step", unit: "people", xTitle: "step" });
}
