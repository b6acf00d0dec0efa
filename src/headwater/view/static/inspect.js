// A request as it came beside the events it became: pointing at a field shows where it stands in
// the request, pointing at a value of the request shows what became of it.

import { addressOf, ago, api, badge, bytes, facts, h, number, readable, show, sources, time, waiting } from "./frame.js";

const STATES = { stored: "ok", duplicate: "warn", "in flight": "warn", "not stored": "bad", "dry run": "", decoded: "" };

/** Ask for a request and show it in `place`; of one with many events, the one named. */
export async function inspectRequest(place, requestId, { eventId } = {}) {
  const done = waiting(place, "Reading the journal …");
  try {
    const request = await api(`/api/requests/${encodeURIComponent(requestId)}`, { query: { event_id: eventId } });
    showRequest(place, request, { eventId });
  } finally {
    done();
  }
}

/** Show a request that the API has given (RequestShown). */
export function showRequest(place, request, { eventId } = {}) {
  const light = new Light(request);
  show(place,
    head(request),
    request.note ? h("p", { class: "refusal" }, request.note) : null,
    h("div", { class: "pair inspected" },
      request.wire.length ? came(request, light) : null,
      became(place, request, light, eventId)),
    light.status);
  if (eventId) place.querySelector(`[data-event="${CSS.escape(eventId)}"]`)?.setAttribute("open", "");
}

function head(request) {
  const sql = `SELECT * FROM events WHERE request_id = '${String(request.request_id).replace(/[^0-9a-f-]/gi, "")}'`;
  return h("div", { class: "stack" },
    facts([
      ["Dialect", request.dialect],
      ["Account", request.account],
      request.received_at ? ["Received", [time(request.received_at), " ", h("span", { class: "muted" }, "(", ago(request.received_at), ")")]] : null,
      request.transport ? ["Over", `${request.transport}${request.peer ? `, from ${request.peer}` : ""}`] : null,
      request.wire.length && request.body_bytes ? ["Body", [bytes(request.body_bytes), request.encoding ? `, ${request.encoding}, shown inflated` : "",
        request.body_left_out_bytes ? `, ${bytes(request.body_left_out_bytes)} of it not shown` : ""]] : null,
      request.request_id ? ["Request", h("code", {}, request.request_id)] : null,
      request.refused ? ["Answered", "as refused"] : null,
    ]),
    request.request_id ? sources(sql, `/api/requests/${request.request_id}`) : null);
}

// --- what lights up -------------------------------------------------------------------------------

/** Which pieces of the request and which fields belong together. */
class Light {
  constructor(request) {
    this.leaves = request.leaves;
    this.pieces = new Map(); // leaf -> elements
    this.rows = new Map(); // leaf -> rows
    this.lit = [];
    this.status = h("p", { class: "told", role: "status", "aria-live": "polite" });
  }

  piece(leaf, element) { (this.pieces.get(leaf) || this.pieces.set(leaf, []).get(leaf)).push(element); }

  row(leaf, element) { (this.rows.get(leaf) || this.rows.set(leaf, []).get(leaf)).push(element); }

  clear() {
    for (const one of this.lit) one.classList.remove("lit", "hint");
    this.lit = [];
    this.status.textContent = "";
  }

  mark(elements, kind) {
    for (const one of elements) { one.classList.add(kind); this.lit.push(one); }
  }

  field(row, field) {
    this.clear();
    this.mark([row], "lit");
    for (const leaf of field.decided_by) this.mark(this.pieces.get(leaf) || [], "hint");
    for (const leaf of field.came_from) this.mark(this.pieces.get(leaf) || [], "lit");
    const first = [...field.came_from, ...field.decided_by].flatMap((leaf) => this.pieces.get(leaf) || []).find((one) => one.offsetParent);
    if (first) within(first);
    this.status.textContent = `${field.path}: ${said(this.leaves, field)}`;
  }

  value(element, leaves) {
    this.clear();
    this.mark(leaves.flatMap((leaf) => this.pieces.get(leaf) || []), "lit");
    const rows = [...new Set(leaves.flatMap((leaf) => this.rows.get(leaf) || []))];
    this.mark(rows, "lit");
    const words = leaves.map((leaf) => this.leaves[leaf].words);
    this.status.textContent = `${words.join(", ")}: ${rows.length ? rows.map((one) => one.dataset.path).join(", ") : "nothing depends on it"}`;
  }
}

/** Scroll the box that an element stands in, and not the page. */
function within(element) {
  const box = element.closest("pre");
  const at = element.getBoundingClientRect();
  const around = box.getBoundingClientRect();
  if (at.top < around.top || at.bottom > around.bottom) box.scrollTop += at.top - around.top - box.clientHeight / 3;
}

const words = (leaves, numbers) => [...new Set(numbers.map((leaf) => leaves[leaf].words))];

function said(leaves, field) {
  return [
    field.came_from.length ? `from ${words(leaves, field.came_from).join(", ")}` : "",
    field.decided_by.length ? `decided by ${words(leaves, field.decided_by).join(", ")}` : "",
    field.rule,
  ].filter(Boolean).join("; ");
}

// --- the request ----------------------------------------------------------------------------------

function came(request, light) {
  const wire = text(request.wire, light, "The request as it came");
  const laidOut = text(request.readable, light, "The request laid out");
  laidOut.hidden = true;
  const toggle = h("button", { type: "button", class: "plain", "aria-pressed": "false", onclick: () => {
    laidOut.hidden = !laidOut.hidden;
    wire.hidden = !laidOut.hidden;
    toggle.setAttribute("aria-pressed", String(!laidOut.hidden));
  } }, "Laid out");
  return h("section", { class: "card", "aria-label": "Request" },
    h("div", { class: "row apart middle" }, h("h2", {}, "As it came"), toggle),
    wire, laidOut,
    h("p", { class: "muted small" }, "Point at a value, or focus the text and use the arrow keys, to see what became of it."));
}

/** The text as one stop of the keyboard; the arrows go from value to value. */
function text(pieces, light, label) {
  const values = [];
  const box = h("pre", { class: "wire", tabindex: 0, role: "group", "aria-label": label }, pieces.map((piece) => {
    if (!piece.leaves.length) return piece.text;
    const span = h("span", { class: "leaf", onmouseenter: () => light.value(span, piece.leaves), onclick: () => light.value(span, piece.leaves) }, piece.text);
    for (const leaf of piece.leaves) light.piece(leaf, span);
    values.push([span, piece.leaves]);
    return span;
  }));
  let at = -1;
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") { light.clear(); return; }
    if (!step || !values.length) return;
    event.preventDefault();
    at = Math.min(values.length - 1, Math.max(0, at + step));
    light.value(...values[at]);
    within(values[at][0]);
  });
  return box;
}

// --- what it became -------------------------------------------------------------------------------

function became(place, request, light, eventId) {
  const events = request.events.map((event, at) => shown(place, request, event, light, request.events.length === 1 || at === 0 || event.event_id === eventId));
  const nothing = !request.events.length && !request.rejected.length;
  return h("section", { class: "card", "aria-label": "Events" },
    h("h2", {}, `What it became`),
    events,
    request.more_events > 0 ? h("p", { class: "muted" }, `${number(request.more_events)} more events came with it.`) : null,
    request.rejected.map((one) => rejected(one)),
    request.more_rejected > 0 ? h("p", { class: "muted" }, `${number(request.more_rejected)} more were rejected.`) : null,
    request.heartbeats ? h("p", {}, `${number(request.heartbeats)} ${request.heartbeats === 1 ? "heartbeat: it prolongs its session and is" : "heartbeats: they prolong their sessions and are"} no event.`) : null,
    nothing && !request.heartbeats ? h("p", { class: "muted" }, "No event.") : null);
}

function shown(place, request, event, light, open) {
  const known = event.status !== "dry run" && event.status !== "decoded";
  return h("details", { class: "event", open, data: { event: event.event_id } },
    h("summary", {}, h("strong", {}, event.name || "(no name)"), " ", badge(event.status, STATES[event.status] || ""), " ",
      h("span", { class: "muted" }, event.kind), event.issues.length ? [" ", badge(`${event.issues.length} noted`, "warn")] : null),
    event.note ? h("p", { class: "muted" }, event.note) : null,
    facts([
      event.occurred_at ? ["Happened", time(event.occurred_at)] : null,
      known ? ["Who", event.person_id ? h("a", { href: `/people/${encodeURIComponent(event.person_id)}` }, event.person_id) : "nobody yet"] : null,
      event.session_id ? ["Session", h("code", {}, event.session_id)] : null,
      known && event.event_id ? ["Event", h("a", { href: `/events/${encodeURIComponent(event.event_id)}` }, event.event_id)] : null,
      event.copy_of ? ["First copy", h("button", { type: "button", class: "link", onclick: () => inspectRequest(place, event.copy_of, { eventId: event.event_id }) }, "show the request that it came in")] : null,
    ]),
    event.issues.map((one) => issue(one)),
    differences(event),
    fields(event, request, light),
    event.cut ? h("p", { class: "muted small" }, event.cut) : null);
}

/** An issue or a reason, and where it is written down. */
function issue(one, kind = "warn") {
  return h("div", { class: `said ${kind}` },
    h("strong", {}, one.words), one.detail ? h("span", {}, ` (${one.detail})`) : null,
    h("div", { class: "muted small" }, h("code", {}, one.code),
      one.section ? ` · the dialect's card, section ${one.section}` : null, one.page ? ` · ${one.page}` : null));
}

function rejected(one) {
  return h("details", { class: "event", open: true },
    h("summary", {}, h("strong", {}, `Item ${one.index + 1}`), " ", badge(one.stored ? "rejected" : "would be rejected", "bad")),
    issue(one.said, "bad"),
    one.piece ? h("pre", { class: "wire", tabindex: 0, "aria-label": "What was rejected" }, one.piece) : null);
}

function differences(event) {
  if (!event.differs) return null;
  if (!event.differs.length) return h("p", { class: "muted small" }, "The decoder says today what is stored.");
  return h("div", { class: "said warn" }, h("strong", {}, "A replay would change this event."),
    facts(event.differs.map((one) => [one.field, [h("div", {}, "stored: ", h("code", {}, one.stored)), h("div", {}, "now: ", h("code", {}, one.now))]])));
}

function fields(event, request, light) {
  const rows = event.fields.map((field) => {
    const row = h("tr", { tabindex: -1, class: "pick", data: { path: field.path } },
      h("th", { scope: "row" }, field.path.split("/").flatMap((one, at) => (at ? ["/", h("wbr", {}), one] : [one]))),
      h("td", {}, field.path.startsWith("identities/") ? identity(field.value) : h("code", {}, plain(field.value))),
      h("td", {},
        words(request.leaves, field.came_from).map((one) => h("div", {}, one)),
        field.decided_by.length ? h("div", { class: "muted" }, `decided by ${words(request.leaves, field.decided_by).join(", ")}`) : null,
        field.rule ? h("div", { class: "muted" }, field.rule) : null));
    for (const leaf of new Set([...field.came_from, ...field.decided_by])) light.row(leaf, row);
    row.addEventListener("mouseenter", () => light.field(row, field));
    row.addEventListener("focus", () => light.field(row, field));
    row.addEventListener("click", () => row.focus({ preventScroll: true }));
    return row;
  });
  if (rows.length) rows[0].tabIndex = 0;
  const body = h("tbody", {}, rows);
  body.addEventListener("keydown", (event) => {
    const at = rows.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (at < 0 || !step) return;
    event.preventDefault();
    const next = rows[Math.min(rows.length - 1, Math.max(0, at + step))];
    rows[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  return h("div", { class: "scroll", role: "region", "aria-label": `Fields of ${event.name}` },
    h("table", { class: "fields" }, h("thead", {}, h("tr", {}, ["Field", "Value", "Where it came from"].map((one) => h("th", { scope: "col" }, one)))), body));
}

/** An identifier: its value, then what kind of one it is. */
function identity(json) {
  let one;
  try { one = JSON.parse(json); } catch { /* cut where it is long */ }
  if (!one || typeof one.value !== "string") return h("code", {}, json);
  return [h("code", {}, readable(one.value)),
    h("div", { class: "muted small" }, [one.strength, one.scope ? `within ${one.scope}` : "", one.denied ? "means nobody" : ""].filter(Boolean).join(", "))];
}

/** JSON text as one reads it: a text without its quotes and escapes. */
function plain(json) {
  if (!json.startsWith('"')) return json;
  try { return JSON.parse(json); } catch { return json; }
}

/** The address of a request's JSON. */
export const requestAddress = (id, eventId) => addressOf(`/api/requests/${encodeURIComponent(id)}`, { event_id: eventId });
