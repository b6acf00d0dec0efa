// Merges, as the list of all of them and a person's page show them.

import { addressOf, ago, api, badge, currentAccount, empty, h, mayChange, refuse } from "./frame.js";

const account = currentAccount();

/** A person by an id, short. */
export const person = (id, words) =>
  h("a", { href: addressOf(`/people/${id}`, { account }), title: id }, words ?? id.slice(0, 8));

/** An event by its id, short. */
export const event = (id, words) =>
  h("a", { href: addressOf(`/events/${id}`, { account }), title: id }, words ?? id.slice(0, 8));

const identifier = (one) =>
  one.value === undefined ? h("code", {}, one.id) : [badge(one.namespace), " ", h("strong", {}, one.value)];

function line(merge, again) {
  const said = h("div", {});
  const undone = merge.undone_at !== null;
  const mend = async (press) => {
    const button = press.currentTarget;
    button.disabled = true;
    try {
      await api(`/api/merges/${merge.merge_id}/${undone ? "allow" : "undo"}`, { method: "POST" });
      again();
    } catch (error) {
      button.disabled = false;
      refuse(said, error);
    }
  };
  return h("li", { class: "stack" },
    h("div", {}, identifier(merge.pair[0]), " and ", identifier(merge.pair[1]),
      undone ? [" ", badge("undone", "warn")] : null),
    h("div", { class: "muted small" },
      ago(merge.at), ", said by the event ", event(merge.cause), ": ", person(merge.gone), " became ",
      person(merge.kept), undone ? [", taken back ", ago(merge.undone_at)] : null),
    mayChange ? h("div", { class: "row" }, h("button", { type: "button", class: "plain", onclick: mend },
      undone ? "Let it count again" : "Undo")) : null,
    said);
}

/** A list of merges; `again` draws the place anew after one was changed. */
export function merges(rows, { again }) {
  if (rows.length === 0) return empty("No merges.");
  return h("ul", { class: "plainlist stack" }, rows.map((merge) => line(merge, again)));
}
