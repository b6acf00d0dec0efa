// One person: timeline, identifiers, sessions, profile, merges; export and erasure.

import {
  addressOf, ago, api, badge, bindQuery, currentAccount, dialectColour, duration, empty, facts, h, lines,
  mayChange, moment, number, readable, refuse, show, sources, table, textOf, tile, time, waiting,
} from "./frame.js";
import { event as eventLink, merges } from "./merges.js";

const place = (id) => document.getElementById(id);
const account = currentAccount();
const ident = decodeURIComponent(location.pathname.split("/")[2] || "");
const address = `/api/people/${encodeURIComponent(ident)}`;
const STATES = { strong: "ok", weak: "", correlation: "", lookup: "warn" };

place("back").href = addressOf("/people", { account });

const dot = (dialect) => h("span", { class: "dot", style: { background: dialectColour(dialect) }, "aria-hidden": "true" });
const dialectOf = (row) => h("span", {}, dot(row.dialect), " ", row.dialect);
const wrapped = (...parts) => h("div", {}, ...parts);
/** A time that a narrow table does not break. */
const when = (iso) => h("span", { title: iso, style: { "white-space": "nowrap" } }, time(iso));

/** Of how many, where a list is cut. */
function shown(found, name) {
  const all = found.counts[name];
  return all > found[name].length
    ? h("p", { class: "muted" }, `${number(found[name].length)} of ${number(all)}; the export has all.`)
    : null;
}

// --- the person -----------------------------------------------------------------------------------

function head(found) {
  const [first] = found.identities;
  const known = found.identities.some((one) => one.strength === "strong");
  const span = found.first_seen ? (moment(found.last_seen) - moment(found.first_seen)) / 1000 : null;
  show(place("head"),
    h("h1", {}, first ? readable(first.value) : found.person_id, " ", badge(known ? "known" : "anonymous", known ? "ok" : "")),
    h("p", { class: "muted small" }, "id ", h("code", {}, found.person_id), ` · account ${found.account}`),
    found.asked.toLowerCase() === found.person_id ? null
      : h("p", { class: "muted small" }, "asked for ", h("code", {}, found.asked), ", which is this person's too"),
    h("div", { class: "tiles" },
      tile("Events", number(found.events)),
      tile("Sessions", number(found.counts.sessions)),
      tile("Identifiers", number(found.counts.identities)),
      tile("First seen", time(found.first_seen)),
      tile("Last seen", time(found.last_seen), span ? `known for ${duration(span)}` : null)),
    sources(found.sql.person, address));
  document.title = `${first ? first.value : "Person"} · Headwater`;
}

const IDENTITIES = [
  { title: "Identifier", cell: (row) => wrapped(h("strong", {}, readable(row.value))) },
  { title: "Namespace", cell: (row) => wrapped(row.namespace, row.scope ? h("span", { class: "muted" }, ` in ${row.scope}`) : null) },
  { title: "Strength", cell: (row) => wrapped(badge(row.strength, STATES[row.strength] ?? ""), row.shared ? [" ", badge("shared", "warn")] : null) },
  { title: "Events", numeric: true, cell: (row) => number(row.events) },
  { title: "First seen", cell: (row) => when(row.first_seen) },
  { title: "Last seen", cell: (row) => ago(row.last_seen) },
  { title: "Said first by", cell: (row) => wrapped("event ", eventLink(row.asserted_by)) },
];

const SESSIONS = [
  { title: "Began", cell: (row) => when(row.started_at) },
  { title: "Took", cell: (row) => duration((moment(row.ended_at) - moment(row.started_at)) / 1000) },
  { title: "Dialect", cell: dialectOf },
  { title: "Events", numeric: true, cell: (row) => number(row.events) },
  { title: "Errors", numeric: true, cell: (row) => number(row.errors) },
  { title: "", cell: (row) => wrapped(row.over ? null : badge("alive", "ok"), row.derived ? [" ", badge("derived")] : null) },
  { title: "Id", cell: (row) => h("code", { title: row.session_id }, row.session || row.session_id.slice(0, 8)) },
];

const VALUES = [
  { title: "Property", key: "key" },
  { title: "Value", cell: (row) => wrapped(row.value === null ? h("span", { class: "muted" }, "taken away") : h("code", {}, row.value)) },
  { title: "Since", cell: (row) => when(row.at) },
  { title: "By", cell: (row) => wrapped(dialectOf(row), ", event ", eventLink(row.event_id)) },
];

function listed(id, found, columns, caption, none) {
  show(place(id), found[id].length ? table(columns, found[id], { caption }) : empty(none),
    shown(found, id), found.sql[id] ? sources(found.sql[id], address) : null);
}

function device(row) {
  let parts = {};
  try { parts = JSON.parse(row.device); } catch { /* shown as it is */ }
  const pairs = Object.entries(parts);
  return h("li", {},
    pairs.length ? facts(pairs.map(([name, value]) => [name, textOf(value)])) : h("code", {}, row.device),
    h("p", { class: "muted small" }, `${number(row.events)} events, last `, ago(row.last_seen)));
}

async function load() {
  try {
    const found = await api(address);
    head(found);
    listed("identities", found, IDENTITIES, "Identifiers, the strongest first", "None that stays.");
    listed("sessions", found, SESSIONS, "Sessions, the newest first", "No sessions.");
    listed("profile", found, VALUES, "Profile", "Nothing was ever set.");
    show(place("devices"), found.devices.length
      ? h("ul", { class: "plainlist grid" }, found.devices.map(device)) : empty("None that is known."), shown(found, "devices"));
    show(place("merges"), merges(found.merges, { again: load }), shown(found, "merges"),
      sources(found.sql.merges, address));
    place("export").href = `${address}/export`;
    place("export").setAttribute("download", `person-${found.person_id}.jsonl`);
    if (mayChange) readyToErase(found);
  } catch (error) {
    refuse(place("head"), error);
    for (const section of document.querySelectorAll("main > section")) section.hidden = true;
  }
}

async function history() {
  const done = waiting(place("history"));
  try {
    const found = await api(address, { query: { history: "1" } });
    listed("history", found, VALUES, "Every value that was set or taken away, the newest first", "Nothing was ever set.");
  } catch (error) {
    refuse(place("history"), error);
  } finally {
    done();
  }
}

place("history-more").addEventListener("toggle", (event) => {
  if (event.target.open && !place("history").hasChildNodes()) history();
});

// --- the timeline ---------------------------------------------------------------------------------

const days = new Map();
let asking = null;

function line(event) {
  const properties = event.properties === "{}" ? "" : event.properties;
  return h("li", { class: "row top" },
    h("time", { datetime: event.at, title: `${event.at} UTC`, class: "muted small" }, time(event.at).slice(11)),
    h("div", { class: "grow" },
      h("div", {}, dot(event.dialect), " ", eventLink(event.event_id, event.name || "(no name)"), " ",
        badge(event.kind, event.kind === "error" ? "bad" : ""), " ",
        h("span", { class: "muted small" }, [event.dialect, event.scope].filter(Boolean).join(" · ")),
        event.issues.length ? [" ", h("span", { class: "badge warn", title: event.issues.join("\n") }, "odd")] : null),
      properties ? h("div", { class: "muted small clip" }, properties) : null));
}

function append(events) {
  for (const event of events) {
    const day = time(event.at).slice(0, 10);
    let list = days.get(day);
    if (!list) {
      list = h("ol", { class: "plainlist", "aria-label": day });
      days.set(day, list);
      place("timeline").append(h("h3", {}, day), list);
    }
    list.append(line(event));
  }
}

/** What there is to choose from, with how many; what is chosen stays. */
function choices(names, chosen) {
  for (const field of ["dialect", "kind", "name"]) {
    const counts = new Map();
    for (const row of names) counts.set(row[field], (counts.get(row[field]) || 0) + row.events);
    const select = place("form").elements[field];
    const given = chosen[field] || "";
    if (given && !counts.has(given)) counts.set(given, 0);
    show(select, h("option", { value: "" }, "all"),
      [...counts].filter(([value]) => value).map(([value, count]) => h("option", { value }, `${value} (${number(count)})`)));
    select.value = given;
  }
}

async function page(chosen, before) {
  asking?.abort();
  asking = new AbortController();
  const query = { ...chosen, before };
  const done = waiting(place("older"), "Asking for events …");
  try {
    const found = await api(`${address}/events`, { query, signal: asking.signal });
    if (!before) {
      days.clear();
      show(place("timeline"));
      choices(found.names, chosen);
      if (found.events.length === 0) show(place("timeline"), empty("No such events.", "Choose others above."));
    }
    append(found.events);
    show(place("older"), found.next
      ? h("button", { type: "button", onclick: () => page(chosen, found.next) }, "Older")
      : found.events.length ? h("p", { class: "muted" }, "That is all.") : null);
    show(place("timeline-sources"), sources(found.sql, addressOf(`${address}/events`, chosen)));
  } catch (error) {
    refuse(place("older"), error);
  } finally {
    done();
  }
}

// --- the erasure ----------------------------------------------------------------------------------

let word = "";

function readyToErase(found) {
  word = found.identities[0]?.value.trim() || found.person_id;
  place("word").textContent = word;
}

async function erase() {
  place("erase").disabled = true;
  const said = h("p", { role: "status" }, "Erasing …");
  show(place("erased"), said);
  let receipt = null;
  try {
    await lines(`${address}/erase`, { onLine: (one) => {
      if (one.error) throw Object.assign(new Error(one.error), { remedy: one.remedy });
      if (one.progress) said.textContent = `Erasing: ${Object.entries(one.progress).map(([name, value]) => `${name} ${textOf(value)}`).join(", ")}`;
      if (one.result) receipt = one.result;
    } });
    if (!receipt) throw Object.assign(new Error("the answer broke off"), { remedy: "what has begun is finished by itself: look in the table erasures" });
    show(place("erased"),
      h("h3", {}, "Erased"), h("p", {}, "Keep this receipt; the table erasures has it too."),
      facts(Object.entries(receipt).map(([name, value]) => [name.replaceAll("_", " "), textOf(value)])));
    for (const section of document.querySelectorAll("main > section")) {
      section.hidden = !section.contains(place("erased"));
    }
    show(place("head"), h("h1", {}, "Erased"));
    place("export").closest("p").hidden = true;
    place("erase").closest("p").hidden = true;
    place("erased").scrollIntoView();
  } catch (error) {
    place("erase").disabled = false;
    refuse(place("erased"), error);
  }
}

if (mayChange) {
  const dialog = place("dialog");
  place("erase").addEventListener("click", () => {
    place("typed").value = "";
    place("go").disabled = true;
    dialog.showModal();
    place("typed").focus();
  });
  place("typed").addEventListener("input", () => { place("go").disabled = place("typed").value.trim() !== word; });
  place("confirm").addEventListener("submit", (event) => {
    if (event.submitter?.value === "erase" && place("typed").value.trim() !== word) event.preventDefault();
  });
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "erase" && place("typed").value.trim() === word) erase();
    dialog.returnValue = "";
  });
}

load();
bindQuery(place("form"), (chosen) => page(chosen, ""));
