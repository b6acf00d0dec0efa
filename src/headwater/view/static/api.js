// The API's own description, as a page.

import { api, badge, h, refuse, show } from "./frame.js";

const place = (id) => document.getElementById(id);
place("curl").textContent = `curl -H "Authorization: Bearer $TOKEN" ${location.origin}/api/health`;

function kind(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items) || "anything"}`;
  return schema.type || "";
}

function one(path, method, operation, schemas) {
  const body = operation.requestBody?.content["application/json"]?.schema;
  const answers = Object.entries(operation.responses["200"].content);
  const name = kind(body);
  const fields = schemas[name]?.properties || {};
  return h("details", { class: "endpoint", data: { text: `${method} ${path} ${operation.summary}`.toLowerCase() } },
    h("summary", {}, badge(method.toUpperCase(), operation.security[0].token[0] === "admin" ? "warn" : "ok"), " ", h("code", {}, path), " ", h("span", { class: "muted" }, operation.summary)),
    h("div", { class: "stack" },
      operation.security[0].token[0] === "admin" ? h("p", {}, "needs a token whose scope is admin") : null,
      operation.parameters.length ? h("ul", {}, operation.parameters.map((given) =>
        h("li", {}, h("code", {}, given.name), ` in ${given.in}, ${kind(given.schema)}`, "default" in given.schema && given.schema.default !== "" ? `, default ${JSON.stringify(given.schema.default)}` : ""))) : null,
      body ? h("div", {}, h("p", {}, "Body:"), h("ul", {}, Object.entries(fields).map(([field, schema]) => h("li", {}, h("code", {}, field), ` ${kind(schema)}`)))) : null,
      h("p", {}, "Answer: ", answers.map(([media, { schema }]) => [h("code", {}, media), " ", kind(schema)])),
      method === "get" && !path.includes("{") ? h("p", {}, h("a", { href: path }, "ask it")) : null));
}

try {
  const found = await api("/api/openapi.json");
  const rows = Object.entries(found.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => one(path, method, operation, found.components.schemas)));
  show(place("endpoints"), rows);
  place("find").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const row of rows) row.hidden = !row.dataset.text.includes(wanted);
  });
} catch (error) {
  refuse(place("endpoints"), error);
}
