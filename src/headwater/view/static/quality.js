// Quality: the books, what was rejected and its replay, the tracking plan, names and their property
// types, issues.

import {
  addressOf, ago, api, badge, bindQuery, chart, currentAccount, empty, facts, h, lines, mayChange, moment,
  number, objects, percent, refuse, show, sources, table, textOf, time, waiting,
} from "./frame.js";

const place = (id) => document.getElementById(id);
const dialog = place("dialog");
const account = currentAccount();
const several = !account;
const accountColumn = several ? ["account"] : [];
const SERIES_MAX = 8;

/** Ask for a section; whatever is refused is said in its place. */
async function section(id, path, query, draw) {
  const done = waiting(place(id));
  try {
    draw(await api(path, { query }), addressOf(path, query));
  } catch (error) {
    refuse(place(id), error);
  } finally {
    done();
  }
}

/** Every step of the last days up to now, as the questions cut time: hours, 6 hours, days. */
function steps(days, whole) {
  const hours = whole || days > 10 ? 24 : days > 2 ? 6 : 1;
  const length = hours * 3600e3;
  const found = [];
  const now = Date.now();
  for (let at = Math.floor((now - days * 86400e3) / length + 1) * length; at <= now; at += length) {
    const text = new Date(at).toISOString();
    found.push(whole ? text.slice(0, 10) : `${text.slice(0, 19)}Z`);
  }
  return found;
}

/** Rows of (x, name, count) as series over all x; the largest few by name, the rest as one. */
function series(rows, x, name, count, days) {
  const xs = [...new Set([...steps(days, x === "day"), ...rows.map((row) => row[x])])].sort();
  const totals = new Map();
  for (const row of rows) totals.set(row[name], (totals.get(row[name]) || 0) + row[count]);
  const ranked = [...totals.keys()].sort((one, other) => totals.get(other) - totals.get(one));
  const shown = ranked.slice(0, ranked.length > SERIES_MAX ? SERIES_MAX - 1 : SERIES_MAX);
  const found = new Map(shown.map((one) => [one, xs.map(() => 0)]));
  if (shown.length < ranked.length) found.set("others", xs.map(() => 0));
  for (const row of rows) {
    (found.get(row[name]) || found.get("others"))[xs.indexOf(row[x])] += row[count];
  }
  return { x: xs, series: [...found].map(([title, y]) => ({ name: title, y })) };
}

function stacked(id, rows, columns, title, unit, days) {
  if (rows.length === 0) show(place(id));
  else chart(place(id), { kind: "stacked", title, unit, height: 240, xTitle: "UTC", ...series(rows, ...columns, Number(days)) });
}

function open(title, ...body) {
  show(place("dialog-title"), title);
  show(place("dialog-body"), ...body);
  if (!dialog.open) dialog.showModal();
}

function openFailed(title, error) {
  open(title);
  refuse(place("dialog-body"), error);
}

const button = (words, onclick, more) => h("button", { type: "button", class: "plain", onclick, ...more }, words);
/** Text that keeps some room in a narrow table, so that words stay whole. */
const roomy = (text, rem = 9) => h("span", { style: { display: "inline-block", "min-width": `min(${rem}rem, 60vw)` } }, text);
const dialectColumn = { title: "dialect", cell: (row) => badge(row.dialect) };
const nameButton = (row) => roomy(button(row.name || "(no name)", () => showProperties(row)));
const ages = [
  { title: "first", cell: (row) => ago(row.first_seen) },
  { title: "last", cell: (row) => ago(row.last_seen) },
];

// --- the books ------------------------------------------------------------------------------------

function drawBooks(found, json) {
  const rows = objects(found.books);
  const wrong = rows.some((row) => !row.closes) || found.difference !== 0;
  const overall = show(place("closes"), wrong ? "the books do not close" : "the books close");
  overall.className = `badge ${wrong ? "bad" : "ok"}`;
  show(place("books"),
    found.difference ? h("div", { class: "refusal", role: "alert" },
      h("strong", {}, `${number(found.difference)} events were counted otherwise when they were loaded than when they were accepted.`),
      h("p", {}, "A decoder disagrees with itself: see the log for the batches, and report it.")) : null,
    rows.length === 0 ? empty("Nothing was received yet.", "Send an event: see Try it.") : table([
      ...accountColumn, dialectColumn,
      { title: "received", key: "received", numeric: true },
      { title: "= stored", key: "stored", numeric: true },
      { title: "+ duplicate", key: "duplicate", numeric: true },
      { title: "+ rejected", key: "rejected", numeric: true },
      { title: "+ in flight", key: "in_flight", numeric: true },
      { title: "closes", cell: (row) => (row.closes ? badge("✓ closes", "ok") : badge(`✗ ${number(row.received - row.stored - row.duplicate - row.rejected - row.in_flight)} missing`, "bad")) },
    ], rows, { caption: "received = stored + duplicate + rejected + in flight" }),
    sources(found.books.sql, json));
}

// --- what was rejected ----------------------------------------------------------------------------

function drawRejected(found, json, days) {
  const rows = objects(found.reasons);
  stacked("rejected-chart", objects(found.over_time), ["at", "reason", "rejected"], "Rejected by reason", "rejected", days);
  if (rows.length === 0) {
    show(place("rejected"), empty("Nothing was rejected in this time."), sources(found.reasons.sql, json));
    return;
  }
  show(place("rejected"), table([
    { title: "reason", cell: (row) => h("strong", {}, roomy(row.reason, 8)) },
    ...accountColumn, dialectColumn,
    { title: "rejected", key: "rejected", numeric: true },
    ...ages,
    { title: "", cell: (row) => h("span", { class: "row", style: { "min-width": "13rem" } },
      button("Samples", () => samples(row, days)),
      mayChange ? button("Replay these", () => askReplay(row)) : null) },
  ], rows, { caption: "By reason" }), sources(found.reasons.sql, json));
}

async function samples(row, days) {
  const title = `Rejected: ${row.reason}`;
  const query = { account: row.account, dialect: row.dialect, reason: row.reason, days };
  try {
    const found = await api("/api/quality/rejected/samples", { query });
    const rows = objects(found);
    open(title, h("p", { class: "muted" }, `the latest ${rows.length}`), rows.map(refused),
      sources(found.sql, addressOf("/api/quality/rejected/samples", query)));
  } catch (error) {
    openFailed(title, error);
  }
}

function refused(row) {
  return h("article", {},
    h("div", { class: "row apart middle" },
      h("span", {}, badge(row.dialect), " ", ago(row.received_at), row.detail ? h("strong", {}, ` ${row.detail}`) : null),
      mayChange && row.request_id ? button("Replay this", () => replay(`Replay of ${row.request_id}`, { request_id: row.request_id })) : null),
    h("pre", { tabindex: 0, "aria-label": "the request" }, row.request));
}

const MICROS = 1000;

function askReplay(row) {
  const since = moment(row.first_seen).getTime() * MICROS;
  const until = (moment(row.last_seen).getTime() + 1) * MICROS;
  open(`Replay: ${row.reason}`,
    h("p", {}, `Everything that was received from ${time(row.first_seen)} to ${time(row.last_seen)} is decoded again, `
      + "by today's decoders, configuration and tracking plan. What comes out as it was stays as it is; "
      + "what can become an event now does. Doing it twice is as good as once."),
    h("div", { class: "row" }, h("button", { type: "button", onclick: () => replay(`Replay: ${row.reason}`, { since, until }) }, "Replay")));
}

async function replay(title, order) {
  const progress = h("p", { role: "status" }, "Beginning …");
  open(title, progress);
  const told = (done) => `${number(done.requests)} requests: ${number(done.added)} rows added, ${number(done.removed)} removed, `
    + `${number(done.changed)} changed, ${number(done.unchanged)} unchanged`
    + (done.expired ? `; ${number(done.expired)} stretches are older than the journal, and stay as they are` : "");
  try {
    let result = null;
    await lines("/api/replay", { body: order, onLine: (line) => {
      if (line.progress) show(progress, told(line.progress));
      else if (line.result) result = line.result;
      else throw Object.assign(new Error(line.error), { remedy: line.remedy });
    } });
    show(progress, badge("done", "ok"), ` ${told(result)}`);
    look(state.values());
  } catch (error) {
    openFailed(title, error);
  }
}

// --- the tracking plan ----------------------------------------------------------------------------

const MODES = { observe: "", warn: "warn", reject: "bad" };

function drawPlans(plans, json) {
  show(place("plans"), plans.map((one) => h("details", {},
    h("summary", {}, h("strong", {}, one.account), " ",
      one.plan ? badge(`${number(namesOf(one.plan))} names, mode ${one.plan.mode || "observe"}`, "ok") : badge("no plan")),
    one.plan ? h("pre", { tabindex: 0, "aria-label": "the plan in force" }, JSON.stringify(one.plan, null, 2))
      : h("p", {}, "Write one, or begin with the draft, and name it in the configuration: ", h("code", {}, `[accounts.${one.account}] plan = "plans/${one.account}.json"`)),
    h("p", {}, h("a", { href: addressOf("/api/quality/draft", { account: one.account }), download: `${one.account}.json` }, "Draft made of what was seen"), " (JSON)"))),
  h("p", { class: "sources" }, h("a", { href: json }, "JSON")));
}

const namesOf = (plan) => Object.keys(plan.events || {}).length
  + Object.values(plan.dialects || {}).reduce((sum, one) => sum + Object.keys(one.events || {}).length, 0);

function drawViolations(found, json, days) {
  const rows = objects(found.violations);
  stacked("violations-chart", objects(found.over_time), ["day", "mode", "events"], "What breaks the plan, by what becomes of it", "times", days);
  show(place("violations"), rows.length === 0 ? empty("Nothing broke a plan in this time.") : table([
    ...accountColumn, dialectColumn, { title: "name", cell: (row) => roomy(row.name) },
    { title: "what", cell: (row) => roomy(row.rule, 14) },
    { title: "mode", cell: (row) => badge(row.mode, MODES[row.mode]) },
    { title: "events", key: "events", numeric: true },
    ...ages,
    { title: "", cell: (row) => button("Last one", () => showRequest(row)) },
  ], rows, { caption: "What breaks the plan" }), sources(found.violations.sql, json));
}

async function showRequest(row) {
  const title = `${row.name}: ${row.rule}`;
  const query = { request_id: row.request_id, at: row.last_seen };
  try {
    const found = await api("/api/quality/request", { query });
    const events = objects(found.events);
    const rejected = objects(found.rejected);
    open(title,
      events.length + rejected.length === 0 ? empty("The request has left no rows.", "It was erased, or replayed to something else.") : null,
      events.map(eventOf), rejected.map((one) => refused({ ...one, request_id: row.request_id })),
      sources(found.events.sql, addressOf("/api/quality/request", query)));
  } catch (error) {
    openFailed(title, error);
  }
}

function eventOf(row) {
  return h("article", {},
    h("p", {}, badge(row.dialect), " ", h("a", { href: `/events/${encodeURIComponent(row.event_id)}` }, row.name || "(no name)"), " ", ago(row.received_at)),
    row.issues.map((one) => h("p", {}, badge("issue", "warn"), " ", one)),
    h("pre", { tabindex: 0, "aria-label": "properties" }, JSON.stringify(row.properties, null, 2)));
}

// --- names and properties -------------------------------------------------------------------------

function drift(row) {
  return h("span", { class: "row" }, row.mixed ? badge("several types", "bad") : null,
    row.fresh ? badge("new", "warn") : null, row.gone ? badge("not seen any more", "warn") : null);
}

const propertyColumns = [
  { title: "property", cell: (row) => h("code", {}, row.path || "(the event)") },
  { title: "type", cell: (row) => row.type },
  { title: "drift", cell: (row) => (row.path ? drift(row) : "") },
  { title: "events, about", key: "seen", numeric: true },
  { title: "share", numeric: true, cell: (row) => percent(row.share) },
  ...ages,
];

function drawNames(found, json) {
  const rows = objects(found);
  show(place("names"), rows.length === 0 ? empty("No event in this time.") : table([
    ...accountColumn, dialectColumn,
    { title: "name", cell: nameButton },
    { title: "events", key: "events", numeric: true }, ...ages,
  ], rows, { caption: "Choose a name to see its properties" }), sources(found.sql, json));
}

async function showProperties(row) {
  const query = { account: row.account, dialect: row.dialect, name: row.name };
  const title = `${row.dialect}: ${row.name || "(no name)"}`;
  try {
    const found = await api("/api/quality/properties", { query });
    const rows = objects(found);
    open(title, rows.length === 0 ? empty("Not looked at yet.", "A minute is looked at when it is over.")
      : table(propertyColumns, rows, { caption: "From a sample of each minute; no values are kept" }),
    sources(found.sql, addressOf("/api/quality/properties", query)));
  } catch (error) {
    openFailed(title, error);
  }
}

function drawDrift(found, json) {
  const rows = objects(found);
  show(place("drift"), rows.length === 0
    ? empty("No property has several types, is new in the last 7 days, or is missing for 7 days.")
    : table([...accountColumn, dialectColumn, { title: "name", cell: nameButton }, ...propertyColumns], rows, { caption: "Several types, new in the last 7 days, or not seen for 7 days" }),
  sources(found.sql, json));
}

// --- issues ---------------------------------------------------------------------------------------

function drawIssues(found, json, days) {
  const rows = objects(found.issues);
  stacked("issues-chart", objects(found.over_time), ["at", "issue", "events"], "Issues by kind", "events", days);
  show(place("issues"), rows.length === 0 ? empty("No event was odd in this time.") : table([
    { title: "issue", cell: (row) => roomy(row.issue, 14) },
    ...accountColumn, dialectColumn,
    { title: "events", key: "events", numeric: true }, ...ages,
    { title: "", cell: (row) => button("Samples", () => issueSamples(row, days)) },
  ], rows, { caption: "By text" }), sources(found.issues.sql, json));
}

async function issueSamples(row, days) {
  const query = { account: row.account, dialect: row.dialect, issue: row.issue, days };
  try {
    const found = await api("/api/quality/issues/samples", { query });
    open(row.issue, facts([["dialect", row.dialect], ["events", number(row.events)]]), objects(found).map(eventOf),
      sources(found.sql, addressOf("/api/quality/issues/samples", query)));
  } catch (error) {
    openFailed(textOf(row.issue), error);
  }
}

// --- all of it ------------------------------------------------------------------------------------

function look({ days }) {
  const query = { account, days };
  section("books", "/api/quality/books", { account }, drawBooks);
  section("rejected", "/api/quality/rejected", query, (found, json) => drawRejected(found, json, days));
  section("plans", "/api/quality/plan", { account }, drawPlans);
  section("violations", "/api/quality/violations", query, (found, json) => drawViolations(found, json, days));
  section("drift", "/api/quality/properties", { account }, drawDrift);
  section("names", "/api/quality/names", query, drawNames);
  section("issues", "/api/quality/issues", query, (found, json) => drawIssues(found, json, days));
}

const state = bindQuery(place("form"), look);
