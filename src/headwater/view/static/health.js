// How it is doing: what is wrong in words, and the figures of the last hour.

import { api, badge, bytes, chart, duration, facts, h, number, refuse, short, show, table, tile } from "./frame.js";

const place = (id) => document.getElementById(id);
const two = (n) => String(n).padStart(2, "0");
const WORDS = { ok: "all is well", warn: "look here", bad: "something is wrong" };

function local(micros) {
  const at = new Date(micros / 1000);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

function draw(found) {
  const now = found.figures;
  const worst = found.findings[0]?.state || "ok";
  show(place("overall"), WORDS[worst]).className = `badge ${worst}`;
  show(place("tiles"),
    tile("Acknowledged", `${short(now.acknowledged_a_second)}/s`, "last minute"),
    tile("Loaded", `${short(now.loaded_a_second)}/s`, "last minute"),
    tile("Lag", now.lag_seconds ? duration(now.lag_seconds) : "none", "oldest event not yet loaded"),
    tile("Ack p99", duration(now.acknowledge_p99_seconds), `p50 ${duration(now.acknowledge_p50_seconds)}`),
    tile("Journal", bytes(now.journal_bytes), `of ${bytes(now.journal_bytes_max)}`),
    tile("Disk free", bytes(now.disk_free_bytes), `of ${bytes(now.disk_bytes)}`),
    tile("Connections", number(now.connections), `${number(now.websockets)} WebSockets`),
    tile("Up", duration(now.up_seconds), `${now.workers} ${now.workers === 1 ? "worker" : "workers"}, ${now.watchers} watching`));
  show(place("findings"), table([
    { title: "State", cell: (one) => badge(one.state, one.state) },
    { title: "What", cell: (one) => h("strong", {}, one.what) },
    { title: "Says", cell: (one) => h("div", {}, one.says, one.remedy ? h("div", {}, "→ ", one.remedy) : null) },
  ], found.findings, { caption: "the worst first" }));
  const x = found.points.map((one) => local(one.at));
  const one = (field) => found.points.map((point) => point[field]);
  chart(place("rates"), { kind: "line", title: "Events a second", x, series: [{ name: "acknowledged", y: one("acknowledged") }, { name: "loaded", y: one("loaded") }], height: 220 });
  chart(place("lag"), { kind: "line", title: "Lag in seconds", unit: "s", x, series: [{ name: "lag", y: one("lag_seconds") }], height: 220 });
  chart(place("latency"), { kind: "line", title: "Acknowledgement, 99th percentile in milliseconds", unit: "ms", x, series: [{ name: "p99", y: one("acknowledge_p99_seconds").map((s) => (s === null ? null : s * 1000)) }], height: 220 });
  show(place("versions"), facts(Object.entries(found.versions)));
}

async function look() {
  try {
    draw(await api("/api/health"));
    show(place("said"));
  } catch (error) {
    refuse(place("said"), error);
  }
}

look();
setInterval(() => { if (!document.hidden) look(); }, 5000);
