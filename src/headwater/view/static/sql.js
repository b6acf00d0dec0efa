// SQL: an editor, what can be asked about, and the answer as a table and a chart.

import {
  addressOf, api, bytes, chart, currentAccount, empty, h, mayChange, number, refuse, show, table, waiting,
} from "./frame.js";

const ROWS_SHOWN = 1000;
const place = (id) => document.getElementById(id);
const editor = place("sql");
const result = place("result");
let asking = null;
let leaving = false;

const NUMBER = /^(Nullable\()?(LowCardinality\()?(Nullable\()?(U?Int|Float|Decimal)/;
const TIME = /^(Nullable\()?Date/;

async function run(push = true) {
  const sql = editor.value.trim();
  if (!sql) { editor.focus(); return; }
  if (push) history.pushState(null, "", addressOf("/sql", { sql, account: currentAccount() }));
  asking?.abort();
  const mine = asking = new AbortController();
  place("stop").disabled = false;
  const done = waiting(result);
  const began = performance.now();
  try {
    const answer = await api("/api/query", { body: { sql }, signal: mine.signal });
    if (mine === asking) shown(answer, performance.now() - began, sql);
  } catch (error) {
    if (mine === asking && error.name !== "AbortError") refuse(result, error);
    else if (mine === asking) show(result, empty("You stopped waiting.", "The query ends by itself at its bound in time."));
  } finally {
    done();
    if (mine === asking) place("stop").disabled = true;
  }
}

function shown(answer, milliseconds, sql) {
  const picture = h("div", {});
  const numbers = answer.columns.map((_, at) => at).filter((at) => NUMBER.test(answer.types[at]));
  const xs = answer.columns.map((_, at) => at).filter((at) => !numbers.includes(at));
  const x = xs.find((at) => TIME.test(answer.types[at])) ?? xs[0] ?? (numbers.length > 1 ? numbers[0] : undefined);
  const split = xs.find((at) => at !== x && /^(LowCardinality\()?String/.test(answer.types[at]));
  const y = numbers.find((at) => at !== x);
  const can = x !== undefined && y !== undefined && answer.rows.length > 1 && answer.rows.length <= 5000;
  show(result,
    h("div", { class: "row apart middle" },
      h("h2", {}, `${number(answer.rows.length)} ${answer.rows.length === 1 ? "row" : "rows"} `, h("small", { class: "muted" }, `in ${Math.round(milliseconds)} ms`)),
      can ? h("label", { class: "line" }, h("input", { type: "checkbox", onchange: (event) => {
        if (event.target.checked) draw(picture, answer, x, y, split);
        else show(picture);
      } }), "as a chart") : null),
    picture,
    answer.rows.length
      ? table(answer.columns.map((title, at) => ({ title, numeric: numbers.includes(at), cell: (row) => value(row[at], answer.types[at]) })), answer.rows.slice(0, ROWS_SHOWN))
      : empty("No row.", "The query ran; nothing matches its conditions."),
    answer.rows.length > ROWS_SHOWN ? h("p", { class: "muted" }, `The first ${number(ROWS_SHOWN)} are shown; the downloads hold all.`) : null);
  show(place("downloads"), ["csv", "jsonl", "parquet"].map((format) => h("a", { href: addressOf("/api/query", { sql, format }) }, format.toUpperCase())));
}

function value(one, type) {
  if (one === null) return h("span", { class: "muted" }, "NULL");
  if (typeof one === "object") return h("code", {}, JSON.stringify(one));
  if (typeof one === "number" && /Int/.test(type)) return number(one);
  return String(one);
}

function draw(place_, answer, x, y, split) {
  const times = TIME.test(answer.types[x]);
  const keys = [...new Set(answer.rows.map((row) => String(row[x])))];
  if (times) keys.sort();
  const names = split === undefined ? [answer.columns[y]] : [...new Set(answer.rows.map((row) => String(row[split])))].slice(0, 8);
  const at = new Map(keys.map((key, nth) => [key, nth]));
  const series = names.map((name) => ({ name, y: keys.map(() => null) }));
  for (const row of answer.rows) {
    const one = split === undefined ? series[0] : series[names.indexOf(String(row[split]))];
    if (one) one.y[at.get(String(row[x]))] = row[y];
  }
  chart(place_, { kind: times ? "line" : "bar", title: `${answer.columns[y]} by ${answer.columns[x]}`, x: keys, xTitle: answer.columns[x], series });
}

function use(sql) {
  editor.value = sql;
  run();
}

async function help() {
  try {
    const found = await api("/api/schema");
    place("bounds").textContent = `Read-only. At most ${found.seconds_max} s, ${bytes(found.memory_bytes_max)} of memory, ${number(found.rows_max)} rows and ${bytes(found.answer_bytes_max)} of answer.`;
    show(place("examples"), h("ul", { class: "plainlist" }, found.examples.map((one) =>
      h("li", {}, h("button", { class: "link", type: "button", onclick: () => use(one.sql) }, one.title)))));
    show(place("tables"), Object.entries(found.tables).map(([name, columns]) => h("details", {},
      h("summary", {}, h("code", {}, name)),
      h("ul", { class: "plainlist" }, columns.map((one) => h("li", {},
        h("button", { class: "link mono", type: "button", title: "put it in the query", onclick: () => insert(one.name) }, one.name), " ",
        h("span", { class: "muted small" }, one.type)))))));
    if (!editor.value) editor.value = found.examples[0].sql;
  } catch (error) {
    refuse(place("tables"), error);
  }
}

function insert(words) {
  editor.setRangeText(words, editor.selectionStart, editor.selectionEnd, "end");
  editor.focus();
}

async function kept() {
  try {
    const found = await api("/api/queries");
    show(place("kept"), found.length ? h("ul", { class: "plainlist" }, found.map((one) => h("li", { class: "row apart middle" },
      h("button", { class: "link", type: "button", onclick: () => use(one.sql) }, one.name),
      mayChange ? h("button", { class: "plain small", type: "button", "aria-label": `Remove ${one.name}`, onclick: async () => {
        if (!confirm(`Remove the kept query “${one.name}”?`)) return;
        try { await api(`/api/queries/${encodeURIComponent(one.name)}`, { method: "DELETE" }); kept(); }
        catch (error) { refuse(place("kept"), error); }
      } }, "Remove") : null))) : h("p", { class: "muted" }, "None yet."));
  } catch (error) {
    refuse(place("kept"), error);
  }
}

place("ask").addEventListener("submit", (event) => { event.preventDefault(); run(); });
place("stop").addEventListener("click", () => asking?.abort());
editor.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
  else if (event.key === "Escape") leaving = true;
  else if (event.key === "Tab" && !leaving && !event.shiftKey) { event.preventDefault(); insert("  "); }
  else if (event.key !== "Tab") leaving = false;
});
editor.addEventListener("blur", () => { leaving = false; });
place("keep").hidden = !mayChange;
place("keep").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = new FormData(event.target).get("name").trim();
  try {
    await api(`/api/queries/${encodeURIComponent(name)}`, { method: "PUT", body: { sql: editor.value } });
    event.target.reset();
    kept();
  } catch (error) {
    refuse(place("kept"), error);
  }
});
function fromAddress() {
  const sql = new URLSearchParams(location.search).get("sql");
  if (sql !== null) { editor.value = sql; run(false); }
}
addEventListener("popstate", fromAddress);
show(result, empty("Nothing was asked yet.", "Write a query, or take an example."));
fromAddress();
help();
kept();
