// People: found by any identifier, or who acted last.

import {
  addressOf, ago, api, badge, bindQuery, currentAccount, empty, h, number, readable, refuse, show, sources, table,
  time, waiting,
} from "./frame.js";
import { merges } from "./merges.js";

const place = (id) => document.getElementById(id);
const account = currentAccount();
const several = !account;
/** What was found is no identifier that was sent, but the id of something. */
const THINGS = { person: "person's id", event: "event's id", session: "session's id" };

const link = (row, words) => h("a", { href: addressOf(`/people/${row.person_id}`, { account }) }, words);

function who(row) {
  if (row.namespace !== undefined) return link(row, readable(row.value));
  const [first, ...rest] = row.identities;
  return [
    link(row, first ? readable(first.value) : row.person_id),
    rest.length ? h("div", { class: "muted small" }, rest.map((one) => readable(one.value)).join(" · ")) : null,
  ];
}

function as(row) {
  const namespace = row.namespace ?? row.identities[0]?.namespace;
  if (!namespace) return h("span", { class: "muted" }, "nothing that stays");
  return [badge(THINGS[namespace] || namespace), row.scope ? ` in ${row.scope}` : null];
}

const cell = (make) => (row) => h("div", {}, make(row));

const COLUMNS = [
  { title: "Who", cell: cell(who) },
  { title: "As", cell: cell(as) },
  ...(several ? [{ title: "Account", key: "account" }] : []),
  { title: "Events", numeric: true, cell: (row) => number(row.events) },
  { title: "First seen", cell: (row) => h("span", { title: row.first_seen, style: { "white-space": "nowrap" } }, time(row.first_seen)) },
  { title: "Last seen", cell: (row) => ago(row.last_seen) },
];

let asking = null;

async function find({ find: text }) {
  asking?.abort();
  asking = new AbortController();
  const query = { find: text.trim(), account };
  const done = waiting(place("people"));
  try {
    const found = await api("/api/people", { query, signal: asking.signal });
    place("h-people").textContent = query.find ? `Found for “${query.find}”` : "Who acted last";
    const more = found.more
      ? h("p", { class: "muted" }, query.find ? "More people carry it: it is no way to find one." : "The latest; find others by what they carry.")
      : null;
    show(place("people"),
      found.people.length
        ? table(COLUMNS, found.people, { caption: "People" })
        : empty(query.find ? "Nobody carries that." : "Nobody yet.",
          query.find ? "It must be the whole identifier, as it was sent." : "Send an event that says who it is: the page Try it has examples."),
      more, sources(found.sql, addressOf("/api/people", query)));
  } catch (error) {
    refuse(place("people"), error);
  } finally {
    done();
  }
}

async function showMerges() {
  const done = waiting(place("merges"));
  const query = { account };
  try {
    const found = await api("/api/merges", { query });
    show(place("merges"), merges(found.merges, { again: showMerges }),
      found.more ? h("p", { class: "muted" }, "The latest; the table merges has all.") : null,
      sources(found.sql, addressOf("/api/merges", query)));
  } catch (error) {
    refuse(place("merges"), error);
  } finally {
    done();
  }
}

bindQuery(place("form"), find, { live: false });
place("merges-more").addEventListener("toggle", (event) => {
  if (event.target.open && !place("merges").hasChildNodes()) showMerges();
});
