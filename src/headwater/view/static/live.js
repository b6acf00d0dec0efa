// The first page: what became of each event, as it happens.

import {
  addressOf, api, badge, bindQuery, chart, currentAccount, dialectColour, empty, h, number,
  objects, readable, refuse, Refusal, short, show, textOf, time,
} from "./frame.js";

const SHOWN = 200; // rows kept on the page
const A_SECOND = 25; // more than anybody reads; the rate counts them all
const WINDOW = 90; // seconds of the moving chart
const DIALECTS = ["vaix", "orbee", "nucleus", "vibetrace", "gamooga"];
const STATES = { stored: "ok", duplicate: "warn", rejected: "bad" };

const place = (id) => document.getElementById(id);
const rows = document.querySelector("#events tbody");
const state = place("state");
const seconds = []; // [{at, counts: {dialect: n}}], the oldest first
let source = null;
let paused = false;
let held = [];
let retry = 1;
let asked = 0; // which filter an answer belongs to

function who(row) {
  const known = (row.identities || []).find((one) => one.namespace === "email") || (row.identities || [])[0];
  const said = known && readable(Array.isArray(known) ? known[1] : known.value);
  if (row.person_id) {
    const words = said || `${row.person_id.slice(0, 8)}…`;
    return h("a", { href: addressOf(`/people/${encodeURIComponent(row.person_id)}`, { account: currentAccount() }) }, words);
  }
  return h("span", { class: "muted" }, said || (row.status === "rejected" ? "–" : "nobody yet"));
}

function inIt(row) {
  if (row.status === "rejected") return h("span", {}, h("strong", {}, row.reason), " ", row.detail);
  const issues = (row.issues || []).length;
  const text = textOf(row.properties);
  return h("span", {}, issues ? [badge(`${issues} ${issues === 1 ? "issue" : "issues"}`, "warn"), " "] : null,
    h("span", { class: "mono" }, text.length > 160 ? `${text.slice(0, 160)}…` : text));
}

function line(row) {
  const open = () => inspect(row);
  return h("tr", {
    class: "pick", tabindex: 0, onclick: (event) => { if (!event.target.closest("a")) open(); },
    onkeydown: (event) => { if (event.key === "Enter" && event.target === event.currentTarget) open(); },
  },
  h("td", {}, h("time", { datetime: row.received_at, title: time(row.received_at) }, time(row.received_at).slice(11))),
  h("td", {}, h("span", { class: "dot", style: { background: dialectColour(row.dialect) } }), row.dialect),
  h("td", { title: row.name }, row.name || "–"), h("td", {}, who(row)),
  h("td", {}, badge(row.status, STATES[row.status])), h("td", {}, inIt(row)));
}

function add(fresh) {
  if (paused) {
    held = [...held, ...fresh].slice(-SHOWN);
    place("pause").textContent = `Go on (${held.length})`;
    return;
  }
  rows.prepend(...fresh.slice(-SHOWN).reverse().map(line));
  while (rows.children.length > SHOWN) rows.lastChild.remove();
  none();
}

function none() {
  show(place("none"), rows.children.length ? null : empty("Nothing yet.",
    "Send an event, or try one out: the page “Try it” has an example of every dialect."));
}

// --- the rate -------------------------------------------------------------------------------------

function count(counts) {
  const at = Math.floor(Date.now() / 1000);
  let last = seconds.at(-1);
  if (!last || last.at !== at) seconds.push(last = { at, counts: {} });
  for (const [dialect, by] of Object.entries(counts)) {
    last.counts[dialect] = (last.counts[dialect] || 0) + Object.values(by).reduce((sum, n) => sum + n, 0);
  }
  while (seconds.length > WINDOW + 2) seconds.shift();
}

function drawRate() {
  const now = Math.floor(Date.now() / 1000) - 1; // the second that is over
  const by = new Map(seconds.map((one) => [one.at, one.counts]));
  const at = Array.from({ length: WINDOW }, (_, place_) => now - WINDOW + 1 + place_);
  const wanted = new URLSearchParams(location.search).get("dialect");
  const two = (n) => String(n).padStart(2, "0");
  const local = (second) => {
    const d = new Date(second * 1000);
    return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  };
  const series = DIALECTS.filter((name) => !wanted || name === wanted).map((name) => ({
    name, colour: dialectColour(name), y: at.map((second) => by.get(second)?.[name] || 0),
  }));
  const last = series.map((one) => [one.name, one.y.slice(-5).reduce((sum, n) => sum + n, 0) / 5]);
  const sum = last.reduce((all, [, n]) => all + n, 0);
  show(place("rate"), `${short(sum)} a second`, sum ? ` · ${last.filter(([, n]) => n).map(([name, n]) => `${name} ${short(n)}`).join(" · ")}` : "");
  chart(place("chart"), {
    kind: "stacked", moving: true, height: 190, title: "Events a second by dialect", x: at.map(local), series,
  }).catch((error) => refuse(place("chart"), error));
}

setInterval(() => { if (!document.hidden) drawRate(); }, 1000);

// --- watching -------------------------------------------------------------------------------------

function said(words, kind) {
  state.textContent = words;
  state.className = `badge ${kind}`;
}

function connect(filters) {
  source?.close();
  said("connecting", "");
  const mine = ++asked;
  source = new EventSource(addressOf("/api/live", { ...filters, account: currentAccount(), rows: A_SECOND }));
  let batch = [];
  source.onopen = () => { retry = 1; said(paused ? "paused" : "live", "ok"); };
  source.onmessage = (event) => {
    const row = JSON.parse(event.data);
    if (!batch.length) requestAnimationFrame(() => { if (mine === asked) add(batch); batch = []; });
    batch.push(row);
  };
  source.addEventListener("counts", (event) => count(JSON.parse(event.data)));
  source.addEventListener("missed", (event) =>
    show(place("said"), h("p", { class: "muted" }, `${number(JSON.parse(event.data).rows)} events came faster than they can be shown; they are stored all the same.`)));
  source.addEventListener("dropped", () => {
    source.close();
    said("too slow", "warn");
    show(place("said"), h("div", { class: "refusal" }, h("strong", {}, "This page could not keep up and was dropped."),
      h("p", {}, "Nothing waits for it. ", h("button", { class: "plain", type: "button", onclick: () => { show(place("said")); connect(filters); } }, "Watch again"))));
  });
  source.onerror = () => {
    if (source.readyState !== EventSource.CLOSED) { said("reconnecting", "warn"); return; }
    // The browser gives up after a refusal: ask why, and come back by ourselves.
    said("not connected", "bad");
    const wait = retry * 1000;
    retry = Math.min(30, retry * 2);
    api("/api/openapi.json").then(() => show(place("said")), (error) => refuse(place("said"), error));
    setTimeout(() => { if (mine === asked) connect(filters); }, wait);
  };
}

const text = (value) => `'${String(value).replace(/\\/g, "\\\\").replace(/'/g, "\\'")}'`;

/** What was there before this page was opened. */
async function before(filters) {
  const mine = asked;
  const where = [];
  for (const field of ["dialect", "name"]) if (filters[field]) where.push(`${field} = ${text(filters[field])}`);
  if (currentAccount()) where.push(`account = ${text(currentAccount())}`);
  if (filters.person) where.push(`person_id = toUUID(${text(filters.person.trim())})`);
  if (filters.status === "duplicate") return;
  const and = where.length ? `WHERE ${where.join(" AND ")} ` : "";
  const sql = filters.status === "rejected"
    ? `SELECT request_id, dialect, account, received_at, reason, detail, '' AS name, 'rejected' AS status FROM rejected ${and}ORDER BY received_at DESC LIMIT 50`
    : `SELECT event_id, request_id, dialect, account, name, received_at, person_id, identities, properties, issues, 'stored' AS status FROM events ${and}ORDER BY received_at DESC LIMIT 50`;
  if (filters.status === "rejected" && (filters.name || filters.person)) return;
  try {
    const found = objects(await api("/api/query", { body: { sql } }));
    if (mine !== asked) return;
    const have = new Set([...rows.children].map((one) => one.dataset.id));
    rows.append(...found.filter((one) => !have.has(one.event_id)).map(line));
    none();
  } catch (error) {
    if (error instanceof Refusal) refuse(place("said"), error);
    else throw error;
  }
}

bindQuery(place("filters"), (values) => {
  const filters = { ...values, person: (values.person || "").trim() };
  rows.replaceChildren();
  seconds.length = 0;
  held = [];
  show(place("said"));
  if (filters.person && !/^[0-9a-f-]{36}$/i.test(filters.person)) {
    refuse(place("said"), new Refusal("that is no id of a person", "find one on the page People", 400));
    return;
  }
  connect(filters);
  before(filters);
  drawRate();
});

place("pause").addEventListener("click", (event) => {
  paused = !paused;
  event.currentTarget.setAttribute("aria-pressed", String(paused));
  event.currentTarget.textContent = paused ? "Go on" : "Pause";
  said(paused ? "paused" : "live", paused ? "warn" : "ok");
  if (!paused) { const waiting = held; held = []; add(waiting); }
});
place("clear").addEventListener("click", () => { rows.replaceChildren(); none(); });

// --- one event ------------------------------------------------------------------------------------

const detail = place("detail");
place("close").addEventListener("click", () => detail.close());

async function inspect(row) {
  show(place("inspected"), h("p", { class: "muted" }, "Reading the journal …"));
  detail.showModal();
  try {
    const { inspectRequest } = await import("./inspect.js");
    await inspectRequest(place("inspected"), row.request_id, { eventId: row.event_id });
  } catch (error) {
    refuse(place("inspected"), error);
  }
}

addEventListener("pagehide", () => source?.close());
