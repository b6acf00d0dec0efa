// What the pages that ask about events share: the form for which events and when, its conditions
// and steps, and the address bar that holds all of it.

import { addressOf, api, currentAccount, h, show } from "./frame.js";

const OPERATORS = [
  ["is", "is"], ["is_not", "is not"], ["contains", "contains"], ["contains_not", "does not contain"],
  ["starts", "starts with"], ["greater", "greater than"], ["less", "less than"], ["set", "is set"], ["not_set", "is not set"],
];
const WITHOUT_VALUE = ["set", "not_set"];
export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
let counted = 0;

/** A word for a value of a group: what is not set has none of its own. */
export const valueWords = (value) => (value === null || value === undefined ? "(not set)" : value === "" ? "(empty)" : String(value));

/** The form `form` of a page and the address bar, in step. Fields by name; `filters` (an element)
 * holds the conditions, `steps` the steps of a funnel. `onChange(query)` gets what the API takes. */
export class Question {
  constructor(form, { filters, steps, defaults = {}, onChange }) {
    Object.assign(this, { form, filters, steps, onChange, suggested: null });
    const asked = new URLSearchParams(location.search);
    asked.delete("account");
    if (![...asked.keys()].length && Object.keys(defaults).length) {
      history.replaceState(null, "", addressOf(location.pathname, { account: currentAccount(), ...defaults }));
    }
    this.names = h("datalist", { id: "names" });
    this.fields = h("datalist", { id: "fields" });
    form.append(this.names, this.fields);
    form.addEventListener("submit", (event) => { event.preventDefault(); this.change(); });
    form.addEventListener("change", (event) => {
      if (event.target.dataset.waits !== "yes") this.change();
    });
    addEventListener("popstate", () => { this.fill(); this.onChange(this.query()); });
    this.fill();
  }

  /** Ask for the first time, and for what can be suggested. */
  begin() {
    this.onChange(this.query());
    this.suggest();
  }

  fill() {
    const asked = new URLSearchParams(location.search);
    for (const field of this.form.elements) {
      if (!field.name) continue;
      if (field.type === "checkbox") field.checked = asked.has(field.name) ? asked.get(field.name) === field.value : field.defaultChecked;
      else if (asked.has(field.name)) set(field, asked.get(field.name));
      else if (field.tagName === "SELECT") field.value = usual(field);
      else field.value = field.defaultValue;
    }
    if (this.filters) show(this.filters, asked.getAll("where").map(parsed).filter(Boolean).map((one) => this.filterRow(one)));
    if (this.steps) show(this.steps, asked.getAll("step").map(parsed).filter(Boolean).map((one) => this.stepRow(one)));
    this.times();
  }

  /** What is in the form: for the address bar only what is not as usual. */
  values(short = false) {
    const values = {};
    for (const field of this.form.elements) {
      if (!field.name) continue;
      if (field.type === "checkbox") { if (field.checked !== field.defaultChecked) values[field.name] = field.checked ? field.value : field.dataset.off; }
      else if (field.value !== "" && !(short && field.tagName === "SELECT" && field.value === usual(field))) values[field.name] = field.value;
    }
    if (values.range !== "dates") { delete values.since; delete values.until; }
    if (this.filters) values.where = rowsIn(this.filters).map(filterOf).filter(Boolean).map((one) => JSON.stringify(one));
    if (this.steps) values.step = [...this.steps.children].map(stepOf).map((one) => JSON.stringify(one));
    return values;
  }

  /** The same for the API. */
  query(values = this.values()) {
    const asked = { ...values, zone: ZONE, account: currentAccount() };
    if (asked.range === "dates") {
      delete asked.range;
      if (asked.since) asked.since = `${asked.since}Z`;
      if (asked.until) asked.until = `${asked.until}Z`;
    }
    delete asked.as;
    return asked;
  }

  change() {
    this.times();
    const address = addressOf(location.pathname, { ...this.values(true), account: currentAccount() });
    if (address !== location.pathname + location.search) history.pushState(null, "", address);
    this.onChange(this.query());
  }

  /** Set fields by name, as if somebody had. */
  put(values) {
    for (const [name, value] of Object.entries(values)) set(this.form.elements[name], value);
    this.change();
  }

  times() {
    const dates = this.form.elements.range?.value === "dates";
    for (const one of this.form.querySelectorAll(".dates")) one.hidden = !dates;
  }

  /** One more condition; with a value it is in force at once. */
  add(filter) {
    const row = this.filterRow(filter || ["", "is", ""]);
    this.filters.append(row);
    if (filter) this.change();
    else row.querySelector("input").focus();
  }

  filterRow([field, operator, ...values]) {
    return conditionRow(this, field, operator, values, () => this.change());
  }

  addStep(name = "") {
    const row = this.stepRow([name]);
    this.steps.append(row);
    if (name) this.change();
    else row.querySelector("input").focus();
  }

  stepRow([name, ...filters]) {
    const own = h("div", { class: "stack filters" }, filters.map((one) => conditionRow(this, one[0], one[1], one.slice(2), () => this.change())));
    const row = h("li", { class: "step stack" },
      h("div", { class: "row" },
        h("label", { class: "grow" }, "Event name", h("input", { class: "stepname", list: "names", value: name, placeholder: "any event", autocomplete: "off" })),
        plainButton("Condition", () => {
          const one = conditionRow(this, "", "is", [""], () => this.change());
          own.append(one);
          one.querySelector("input").focus();
        }),
        plainButton("Up", () => { row.previousElementSibling?.before(row); this.change(); }),
        plainButton("Remove", () => { row.remove(); this.change(); })),
      own);
    return row;
  }

  async suggest() {
    try {
      const { range, since, until, zone, account, time } = this.query();
      this.suggested = await api("/api/explore/fields", { query: { range, since, until, zone, account, time } });
    } catch {
      return; // suggestions only: the page says by itself what is wrong
    }
    const paths = this.suggested.paths.rows.map((row) => row[0]);
    const words = [...Object.keys(this.suggested.words), ...this.suggested.columns, ...paths];
    show(this.fields, [...new Set(words)].map((one) => h("option", { value: one }, this.suggested.words[one] || "")));
    const names = new Map();
    for (const [dialect, name, , events] of this.suggested.names.rows) {
      if (!names.has(name)) names.set(name, `${dialect}, ${events}`);
    }
    show(this.names, [...names].map(([name, more]) => h("option", { value: name }, more)));
    this.onSuggested?.(this.suggested);
  }
}

const usual = (select) => ([...select.options].find((one) => one.defaultSelected) || select.options[0]).value;

function set(field, value) {
  if (!field) return;
  if (field.type === "checkbox") { field.checked = value === field.value; return; }
  if (field.tagName === "SELECT" && ![...field.options].some((one) => one.value === value)) field.append(h("option", { value }, value));
  field.value = value;
}

function parsed(text) {
  try {
    const found = JSON.parse(text);
    return Array.isArray(found) && found.length ? found : null;
  } catch { return null; }
}

const plainButton = (words, onclick) => h("button", { type: "button", class: "plain", onclick }, words);

function conditionRow(question, field, operator, values, changed) {
  counted += 1;
  const list = h("datalist", { id: `values-${counted}` });
  const fieldInput = h("input", { class: "field", list: "fields", value: field, placeholder: "country, properties.plan …", autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
  const select = h("select", { class: "operator" }, OPERATORS.map(([value, words]) => h("option", { value, selected: value === operator }, words)));
  // Several values are a condition of a link's own: kept as they came, shown as a list.
  const many = values.length > 1;
  const value = h("input", { class: "value", list: list.id, value: many ? values.join(", ") : values[0] ?? "", readonly: many, autocomplete: "off", onfocus: () => suggestValues(question, fieldInput.value, value, list) });
  const valueLabel = h("label", { class: "grow" }, "Value", value);
  const row = h("div", { class: "row condition", role: "group", "aria-label": "condition" },
    h("label", { class: "grow" }, "Where", fieldInput),
    h("label", {}, "Condition", select),
    valueLabel, list,
    plainButton("Remove", () => { row.remove(); changed(); }));
  if (many) row.dataset.values = JSON.stringify(values);
  const show_ = () => { valueLabel.hidden = WITHOUT_VALUE.includes(select.value); };
  select.addEventListener("change", show_);
  show_();
  return row;
}

async function suggestValues(question, field, input, list) {
  if (!field || input.dataset.of === field) return;
  input.dataset.of = field;
  try {
    const { range, since, until, account, time } = question.query();
    const found = await api("/api/explore/values", { query: { range, since, until, account, time, by: field, limit: 50 } });
    show(list, found.rows.map(([value, events]) => h("option", { value }, `${events} events`)));
  } catch { show(list); }
}

const rowsIn = (place) => [...place.querySelectorAll(":scope > .condition")];

function filterOf(row) {
  const field = row.querySelector(".field").value.trim();
  const operator = row.querySelector(".operator").value;
  if (!field) return null;
  if (WITHOUT_VALUE.includes(operator)) return [field, operator];
  const value = row.querySelector(".value").value;
  if (row.dataset.values) return [field, operator, ...JSON.parse(row.dataset.values)];
  return value === "" && !["is", "is_not"].includes(operator) ? null : [field, operator, value];
}

function stepOf(row) {
  return [row.querySelector(".stepname").value, ...rowsIn(row.querySelector(".filters")).map(filterOf).filter(Boolean)];
}
