// Retention: the triangle of who came back, and the curve of all together.

import { addressOf, api, chart, empty, h, number, percent, refuse, show, sources, waiting } from "./frame.js";
import { Question } from "./question.js";

const place = (id) => document.getElementById(id);
let asking = null;
const question = new Question(place("form"), { filters: place("filters"), onChange: ask });
place("add").addEventListener("click", () => question.add());
question.begin();

async function ask(values) {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  const query = { ...values };
  for (const name of ["start", "back"]) if (query[name]) query[name] = JSON.stringify([query[name]]);
  const done = waiting(place("result"));
  try {
    const found = await api("/api/retention", { query, signal });
    if (!signal.aborted) draw(found, query);
  } catch (error) {
    if (error.name === "AbortError") return;
    show(place("curve"));
    refuse(place("result"), error);
  } finally {
    if (!signal.aborted) done();
  }
}

/** The cohorts in order, each with its people by how many units later. */
function cohortsOf(found) {
  const cohorts = new Map();
  for (const [cohort, after, people] of found.rows) {
    if (!cohorts.has(cohort)) cohorts.set(cohort, []);
    cohorts.get(cohort)[after] = people;
  }
  return cohorts;
}

/** How many units after `cohort` the unit with `end` (a Date) is. */
function unitsBetween(cohort, end, unit) {
  const at = new Date(`${cohort}T00:00:00`);
  if (unit === "month") return (end.getFullYear() - at.getFullYear()) * 12 + end.getMonth() - at.getMonth();
  return Math.floor((end - at) / 86_400_000 / (unit === "week" ? 7 : 1) + 0.05); // a day may have 25 h
}

function draw(found, query) {
  const row = sources(found.sql, addressOf("/api/retention", query));
  if (!found.rows.length) {
    show(place("curve"));
    show(place("result"), empty("Nobody began in this time.", "Choose a longer time, other names, or also who is not new."), row);
    return;
  }
  const cohorts = cohortsOf(found);
  const end = new Date(new Date(found.until).getTime() - 1);
  const lengths = new Map([...cohorts].map(([cohort]) => [cohort, Math.max(0, unitsBetween(cohort, end, query.unit))]));
  const longest = Math.max(...lengths.values());
  const steps = Array.from({ length: longest + 1 }, (_, after) => after);
  show(place("result"), triangle(cohorts, lengths, steps, query.unit), row);
  const share = steps.map((after) => {
    const could = [...cohorts].filter(([cohort]) => lengths.get(cohort) >= after);
    const began = could.reduce((sum, [, people]) => sum + people[0], 0);
    return began ? could.reduce((sum, [, people]) => sum + (people[after] || 0), 0) / began : null;
  });
  chart(place("curve"), { kind: "line", x: steps.map((after) => `${query.unit} ${after}`), series: [{ name: "came back", y: share }], share: true, title: "Share of people who came back", xTitle: query.unit });
}

function triangle(cohorts, lengths, steps, unit) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "people who came back" },
    h("table", { class: "triangle" },
      h("caption", {}, "of those who began, and how many people"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, unit), h("th", { scope: "col", class: "num" }, "began"),
        steps.map((after) => h("th", { scope: "col" }, after)))),
      h("tbody", {}, [...cohorts].map(([cohort, people]) => h("tr", {},
        h("th", { scope: "row" }, cohort), h("td", { class: "num" }, number(people[0])),
        steps.map((after) => (after > lengths.get(cohort) ? h("td", {}) : cell(people[after] || 0, people[0]))))))));
}

function cell(people, began) {
  const share = began ? people / began : 0;
  return h("td", { style: { background: `color-mix(in srgb, var(--accent) ${Math.round(share * 60)}%, transparent)` } }, percent(share), h("br"), h("small", { class: "muted" }, number(people)));
}
