// Try it: an example, changed at will, decoded only or sent; what was answered, and what it became.

import { addressOf, api, badge, bindQuery, currentAccount, duration, empty, h, mayChange, refuse, show, table, textOf, waiting } from "./frame.js";
import { showRequest } from "./inspect.js";

const place = (id) => document.getElementById(id);
const form = place("request");
const choose = place("choose");
let offered = { examples: [], changes: [], collector: "" };
let answers = {};
let asked = 0;

// --- choosing -------------------------------------------------------------------------------------

async function offer() {
  offered = await api("/api/try/examples", { query: { account: currentAccount() } });
  bindQuery(choose, chosen);
  if (!mayChange) {
    for (const id of ["dry", "send"]) place(id).disabled = true;
    show(place("answers"), h("p", { class: "muted" }, "This token may read only: trying takes one whose scope is admin. The curl line below needs none."));
  } else if (!offered.collector) place("send").disabled = true;
}

function chosen(values) {
  const mine = offered.examples.filter((one) => one.dialect === values.dialect);
  const accounts = new Set(mine.map((one) => one.account));
  const select = choose.elements.example;
  const title = (one) => (accounts.size > 1 ? `${one.title} (${one.account})` : one.title);
  const wanted = new URLSearchParams(location.search).get("example");
  select.replaceChildren(...mine.map((one) => h("option", { value: title(one) }, title(one))));
  const example = mine.find((one) => title(one) === wanted) || mine[0];
  const change = offered.changes.find((one) => one.dialect === values.dialect);
  if (change) showChange(change);
  if (!example) {
    show(place("why"), `No account speaks ${values.dialect}; add one in the configuration, and examples appear here.`);
    return;
  }
  select.value = title(example);
  place("why").textContent = example.why;
  fill(example);
}

function fill(example) {
  const field = form.elements;
  field.method.value = example.method;
  field.transport.value = example.transport;
  field.target.value = example.target;
  field.headers.value = Object.entries(example.headers).map(([name, value]) => `${name}: ${value}`).join("\n");
  field.body.value = example.body;
  parameters();
  changed();
  answers = {};
  show(place("result"));
  if (mayChange) show(place("answers"), h("p", { class: "muted" }, "The answer comes here."));
}

function showChange(change) {
  show(place("change"), h("h2", {}, "What a client changes"),
    h("p", {}, change.old.map((one, at) => [at ? ", " : "", h("code", {}, one)]), " becomes ", h("code", {}, change.new)),
    h("pre", { tabindex: 0, "aria-label": "The lines" }, change.lines.join("\n")),
    h("p", { class: "muted small" }, change.page));
}

// --- editing --------------------------------------------------------------------------------------

/** The query as fields without escapes; writing one writes the target. */
function parameters() {
  const target = form.elements.target.value;
  const at = target.indexOf("?");
  place("parameters").hidden = at < 0;
  if (at < 0) return;
  const pairs = target.slice(at + 1).split("&").map((field) => {
    const cut = field.indexOf("=");
    return cut < 0 ? [field, null] : [field.slice(0, cut), field.slice(cut + 1)];
  });
  show(place("fields"), pairs.map((pair) => {
    const value = pair[1] === null ? "" : plain(pair[1]);
    const area = h("textarea", { class: "code", rows: value.length > 80 ? 8 : 1, spellcheck: "false", oninput: () => {
      pair[1] = encodeURIComponent(area.value);
      form.elements.target.value = `${target.slice(0, at)}?${pairs.map(([name, text]) => (text === null ? name : `${name}=${text}`)).join("&")}`;
      changed();
    } });
    area.value = value;
    return h("label", {}, plain(pair[0]), area);
  }));
}

function plain(text) {
  try { return decodeURIComponent(text.replace(/\+/g, " ")); } catch { return text; }
}

function changed() {
  const websocket = form.elements.transport.value === "websocket";
  place("token").hidden = !form.elements.headers.value.includes("$TOKEN");
  place("body").hidden = !websocket && form.elements.method.value === "GET" && !form.elements.body.value;
  form.elements.method.disabled = websocket;
  curl();
}

function headers() {
  const found = {};
  for (const line of form.elements.headers.value.split("\n")) {
    if (!line.trim()) continue;
    const cut = line.indexOf(":");
    found[cut < 0 ? line.trim() : line.slice(0, cut).trim()] = cut < 0 ? "" : line.slice(cut + 1).trim();
  }
  return found;
}

/** The same for a shell, before the console has said it: every text in quotes. */
function curl() {
  const quote = (text) => `'${text.replace(/'/g, `'"'"'`)}'`;
  const field = form.elements;
  const base = offered.collector || "http://127.0.0.1:8080";
  const heads = Object.entries(headers()).map(([name, value]) => (name.toLowerCase() === "authorization"
    ? `-H ${quote(`${name}: Bearer `)}"$TOKEN"` : `-H ${quote(`${name}: ${value}`)}`));
  const parts = field.transport.value === "websocket"
    ? [`printf %s ${quote(field.body.value)} | websocat -n1 --no-line`, ...heads, quote(base.replace(/^http/, "ws") + field.target.value)]
    : [`curl -isS -g --path-as-is -X ${quote(field.method.value)} ${quote(base + field.target.value)}`, ...heads,
      ...(field.body.value ? [`--data-raw ${quote(field.body.value)}`] : [])];
  place("curl").textContent = parts.join(" \\\n  ");
}

form.addEventListener("input", (event) => {
  if (event.target.name === "target") parameters();
  if (event.target.name !== "token") changed();
});
form.addEventListener("submit", (event) => { event.preventDefault(); attempt("dry"); });
place("send").addEventListener("click", () => { if (form.reportValidity()) attempt("send"); });
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); if (mayChange) form.requestSubmit(); }
});
place("copy").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  try { await navigator.clipboard.writeText(place("curl").textContent); button.textContent = "Copied"; }
  catch { getSelection().selectAllChildren(place("curl")); button.textContent = "Selected"; }
});

// --- trying ---------------------------------------------------------------------------------------

async function attempt(mode) {
  const field = form.elements;
  const mine = ++asked;
  const body = {
    mode, method: field.method.value, target: field.target.value, transport: field.transport.value,
    headers: headers(), body: field.body.value, token: field.token.value,
  };
  const text = JSON.stringify({ ...body, mode: "", token: "" });
  const done = waiting(place("result"), mode === "dry" ? "Decoding …" : "Sending …");
  try {
    const found = await api("/api/try", { body });
    if (mine !== asked) return;
    if (answers.text !== text) answers = { text };
    answers[mode] = found;
    showAnswers(mode);
  } catch (error) {
    if (mine === asked) { show(place("result")); refuse(place("answers"), error); }
  } finally {
    done();
  }
}

function showAnswers(mode) {
  const found = answers[mode];
  place("curl").textContent = found.curl;
  show(place("answers"), h("div", { class: "grid" }, ["dry", "send"].filter((one) => answers[one]).map((one) => answer(answers[one]))));
  const below = h("div", {});
  show(place("result"),
    found.attribution.length ? attribution(found) : null,
    found.request ? below : empty("Nothing of it is kept.", found.note));
  if (found.request) showRequest(below, found.request);
  if (found.request?.events.some((one) => one.status === "in flight")) again(below, found.request.request_id, asked, 10);
}

/** A busy machine takes longer to load it: look again until it is there. */
function again(below, requestId, mine, times) {
  setTimeout(async () => {
    if (mine !== asked) return;
    const request = await api(`/api/requests/${encodeURIComponent(requestId)}`);
    if (mine !== asked) return;
    if (times > 1 && request.events.some((one) => one.status === "in flight")) again(below, requestId, mine, times - 1);
    else showRequest(below, request);
  }, 1000);
}

function answer(found) {
  const good = found.status < 300;
  return h("div", {},
    h("h2", {}, found.mode === "dry" ? "Dry run" : "Sent"),
    h("p", {}, badge(`${found.status} ${found.reason}`.trim(), good ? "ok" : "bad"), found.mode === "send" ? h("span", { class: "muted" }, ` in ${duration(found.seconds)}`) : null),
    found.note ? h("p", { class: "muted" }, found.note) : null,
    h("pre", { tabindex: 0, "aria-label": "Answer" }, [found.headers.map(([name, value]) => `${name}: ${value}\n`).join(""), found.body || "(no body)"].filter(Boolean).join("\n")));
}

function attribution(found) {
  const sent = found.mode === "send";
  return h("section", { class: "card", "aria-label": "Who" }, h("h2", {}, sent ? "Who it was" : "Who it would be"),
    sent ? null : h("p", { class: "muted small" }, "Who carries each identifier today; the order of events decides in the end."),
    table([
      { title: "Event", cell: (one) => String(one.index + 1) },
      { title: sent ? "Name" : "Identifier", cell: (one) => [one.namespace, textOf(one.value)].filter(Boolean).join(" ") },
      { title: "Strength", cell: (one) => one.strength },
      { title: "Person", cell: (one) => (one.person_id ? h("a", { href: addressOf(`/people/${encodeURIComponent(one.person_id)}`) }, one.person_id) : "") },
      { title: "", cell: (one) => one.words },
    ], found.attribution));
}

offer().catch((error) => refuse(place("answers"), error));
