/*
 * Headwater's browser side; docs/browser.md says what each attribute and call does.
 *
 * An event waits in `batch` for a moment and is posted with its neighbours. A request that failed
 * waits on `shelf` (localStorage), one key each, and is taken off before it is tried again: no
 * other tab sends it meanwhile, and none is sent twice because its page was left too early.
 *
 * While `state` is not "on", nothing is read from the browser, stored or sent. Nothing in here may
 * throw into the page.
 */
(() => {
  "use strict";
  const PATH = "/headwater.js";
  const PREFIX = "headwater.";
  const QUEUE = PREFIX + "q.";
  const LEASE = PREFIX + "lease";
  const OFF = PREFIX + "off";
  const USER = "_vt_user";
  const ACTIVE = "_vt_active"; // there while the session is: a cookie, since subdomains share it
  const IDLE_SECONDS = 1800;
  const BATCH_EVENTS_MAX = 20;
  const BATCH_MS = 100;
  const HELD_MAX = 50;
  const QUEUE_MAX = 50;
  const QUEUE_CHARS_MAX = 100000; // of the 5 MB that an origin has
  const KEEPALIVE_BYTES_MAX = 60000; // browsers allow 64 KiB for all that is under way
  const LEASE_MS = 3000;
  const RETRY_SECONDS_MIN = 2;
  const RETRY_SECONDS_MAX = 300;
  const LATER = [408, 429, 502, 503, 504]; // everything else is an answer

  const w = window;
  const d = document;
  const nav = navigator;
  const script = d.currentScript || d.querySelector("script[data-account],script[data-orbee]");
  if (!script || (w.headwater && w.headwater.track)) return;
  const data = script.dataset;
  const cut = script.src.lastIndexOf(PATH);
  const home = cut < 0 ? script.src.split("/", 3).join("/") : script.src.slice(0, cut);
  const base = (data.collect || home).replace(/\/+$/, "");

  const safe = (work) => (...given) => {
    try {
      return work(...given);
    } catch (e) {}
  };
  const digits = (count) =>
    Array.from(crypto.getRandomValues(new Uint8Array(count)), (byte, at) =>
      at ? byte % 10 : 1 + (byte % 9)
    ).join("");
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  // --- may it? -----------------------------------------------------------------------------------

  const refused =
    nav.globalPrivacyControl ||
    (data.dnt != "ignore" && (nav.doNotTrack == "1" || w.doNotTrack == "1"));
  let state = refused ? "off" : "waiting";
  let held = []; // what was asked for while waiting; in memory only

  const when = (work) => {
    if (state == "on") work();
    else if (state == "waiting" && held.length < HELD_MAX) held.push(work);
  };

  // --- who: the cookie ---------------------------------------------------------------------------

  let memory = ""; // the cookie's stand-in, for this page, where cookies are refused
  const cookies = () => (safe(() => d.cookie)() || "") + "; " + memory;
  const bake = (name, value, seconds) => {
    const domain = data.domain ? "; Domain=" + data.domain : "";
    const secure = location.protocol == "https:" ? "; Secure" : "";
    safe(() => {
      const rules = "; Path=/; SameSite=Lax; Max-Age=" + seconds + domain + secure;
      d.cookie = name + "=" + value + rules;
    })();
  };

  /* [userId, sessionId] of now; another session after 30 minutes without a call. */
  const ids = () => {
    const jar = cookies();
    const found = /(?:^|; )_vt_user=(\d+)_(\d+)(\w*)/.exec(jar);
    const going = found && jar.includes(ACTIVE + "=");
    const user = found ? found[1] : digits(16);
    const session = going ? found[2] : digits(18);
    const value = user + "_" + session + (found ? found[3] : "_false_false");
    if (!going) bake(USER, value, (+data.days || 365) * 86400);
    bake(ACTIVE, 1, IDLE_SECONDS);
    if (!cookies().includes(value)) memory = USER + "=" + value + "; " + ACTIVE + "=1";
    return [user, session];
  };

  // --- what waits for a second try ---------------------------------------------------------------

  let shelf = {}; // plain properties work on both
  let lasting = false;
  let retry = 0;
  let seconds = RETRY_SECONDS_MIN;
  let closedUntil = 0; // the collector said when to come again

  const open = safe(() => {
    const found = w.localStorage; // throws where it is blocked
    if (found) [shelf, lasting] = [found, true];
  });
  const waiting = () => Object.keys(shelf).filter((key) => key.startsWith(QUEUE)).sort();
  const again = (after) => {
    clearTimeout(retry);
    retry = setTimeout(drain, after * 1000 * (1 + Math.random()));
  };

  const keep = (entry, key) => {
    if (state != "on" || entry.length > QUEUE_CHARS_MAX) return;
    const keys = waiting();
    const size = (one) => (shelf[one] || "").length; // another tab may have taken it
    let chars = keys.reduce((sum, one) => sum + size(one), entry.length);
    while (keys.length >= QUEUE_MAX || chars > QUEUE_CHARS_MAX) {
      chars -= size(keys[0]);
      delete shelf[keys.shift()];
    }
    safe(() => (shelf[key || QUEUE + Date.now().toString(36) + digits(6)] = entry))();
    again(seconds);
  };

  /* Runs `work` in one tab at a time: by a lock, or a lease where there are none (plain http). It
     keeps two tabs from taking the same entry, so it may be as short as one request. */
  const alone = async (work) => {
    if (!lasting) return work();
    if (nav.locks) {
      return nav.locks.request(PREFIX, { ifAvailable: true }, (lock) => lock && work());
    }
    const tab = digits(9);
    const hold = () => (shelf[LEASE] = tab + " " + (Date.now() + LEASE_MS));
    await pause(Math.random() * 300); // all tabs hear at once that they are online
    if ((shelf[LEASE] || "").split(" ")[1] > Date.now()) return;
    hold();
    await pause(100); // the last of those who came together has it
    if (!(shelf[LEASE] || "").startsWith(tab)) return;
    await work(hold);
    delete shelf[LEASE];
  };

  const drain = async () => {
    await alone(async (hold) => {
      for (const key of waiting()) {
        if (state != "on" || Date.now() < closedUntil) break;
        const entry = shelf[key];
        if (!entry) continue;
        if (hold) hold();
        delete shelf[key];
        if (!(await post(entry, key))) break;
      }
      await pause(50); // another tab sees what is gone before it may look
    }).catch(() => {});
    if (state == "on" && waiting().length) again(seconds);
  };

  // --- on the wire -------------------------------------------------------------------------------

  /* An entry is a path, a line end, a body. Both forms are simple requests: no preflight. */
  const unpacked = (entry) => {
    const at = entry.indexOf("\n");
    const body = entry.slice(at + 1);
    return [base + entry.slice(0, at), body[0] == "[" ? new URLSearchParams({ data: body }) : body];
  };

  let gone = false; // the page is left: whether a request arrived is not to be known any more

  /* True once it was answered for good; else it is on the shelf. */
  const post = async (entry, key) => {
    try {
      const [url, body] = unpacked(entry);
      const keepalive = ("" + body).length < KEEPALIVE_BYTES_MAX;
      const answer = await fetch(url, { method: "POST", body, keepalive, credentials: "omit" });
      answer.text().catch(() => {}); // unread, it counts as under way for ever
      if (!LATER.includes(answer.status)) {
        seconds = RETRY_SECONDS_MIN;
        return true;
      }
      const told = +answer.headers.get("retry-after") || 0;
      closedUntil = Date.now() + told * 1000;
      seconds = Math.max(seconds, told);
    } catch (e) {
      if (gone) return;
    }
    keep(entry, key);
    seconds = Math.min(seconds * 2, RETRY_SECONDS_MAX);
  };

  const send = (entry, leaving) => {
    if (nav.onLine === false || Date.now() < closedUntil) keep(entry);
    else if (leaving) nav.sendBeacon(...unpacked(entry)) || keep(entry);
    else post(entry).then((done) => done && waiting().length && drain()).catch(() => {});
  };

  let batch = [];
  let timer = 0;
  const flush = (leaving) => {
    clearTimeout(timer);
    timer = 0;
    while (batch.length) {
      const events = "[" + batch.splice(0, BATCH_EVENTS_MAX) + "]";
      send("/event/" + encodeURIComponent(data.account) + "\n" + events, leaving);
    }
  };

  // --- what pages call ---------------------------------------------------------------------------

  /* In Vibetrace's form: what it reserves stands beside the ids, all else in `generic`. */
  const track = (type, fields) => {
    const event = { type };
    const generic = { at: Date.now() };
    const reserved = ["items", "source", "_vtsid"].concat(type == "login" ? "email" : []);
    for (const key in fields) (reserved.includes(key) ? event : generic)[key] = fields[key];
    event.generic = generic;
    if (!data.account) return;
    when(() => {
      [event.userId, event.sessionId] = ids();
      batch.push(JSON.stringify(event));
      if (!timer) timer = setTimeout(safe(flush), BATCH_MS);
    });
  };

  let seen = "";
  let moving = 0;
  const here = () => location.href.split("#")[0];
  const page = (fields) => {
    clearTimeout(moving);
    moving = 0;
    const url = here();
    track("pageview", { url, title: d.title, referrer: seen || d.referrer, ...fields });
    seen = url;
  };

  const login = (email, fields) => track("login", { ...fields, email });

  const vtsid = (id) => {
    if (state == "off") return "";
    const _vtsid = "" + (id || digits(18));
    track("vtsid", { _vtsid });
    return _vtsid;
  };

  let current = "";
  const instance = (form) => {
    current = digits(18);
    if (form) {
      let field = form.elements.namedItem("instance_id");
      if (!field) {
        field = d.createElement("input");
        field.type = "hidden";
        field.name = "instance_id";
        form.append(field);
      }
      field.value = current;
    }
    return current;
  };

  const orbee = (fields) => {
    const event = { instance_id: current || instance(), dtm: Date.now(), url: here(), ...fields };
    if (data.orbee) {
      when(() => {
        event.duid = ids()[0];
        send("/collect/" + data.orbee + "/event\n" + JSON.stringify(event));
      });
    }
    return event.instance_id;
  };

  const stop = () => {
    state = "off";
    held = [];
    batch = [];
    memory = "";
    bake(USER, "", 0);
    bake(ACTIVE, "", 0);
    for (const key of Object.keys(shelf)) if (key.startsWith(PREFIX)) delete shelf[key];
  };

  const consent = (given) => {
    if (refused) return;
    if (given) start();
    else {
      open();
      stop();
      safe(() => (shelf[OFF] = 1))(); // other tabs hear it
      delete shelf[OFF];
    }
  };

  // --- wiring ------------------------------------------------------------------------------------

  const on = (name, work, where) => (where || w).addEventListener(name, safe(work));

  const start = () => {
    if (state == "on") return;
    if (d.prerendering) {
      state = "waiting";
      return on("prerenderingchange", () => state == "waiting" && start(), d);
    }
    open();
    state = "on";
    held.splice(0).forEach((work) => safe(work)());
    if (waiting().length) drain();
  };

  const leave = (leaving) => {
    if (moving) page();
    flush(leaving);
    if (leaving && !lasting) {
      for (const key of waiting()) if (nav.sendBeacon(...unpacked(shelf[key]))) delete shelf[key];
    }
  };
  const calls = { track, page, login, vtsid, instance, orbee, consent };
  for (const name in calls) calls[name] = safe(calls[name]);
  w.headwater = calls;

  const take = safe((item) => {
    if (typeof item == "function") item();
    else for (const type in item) track(type, item[type]);
  });
  const queue = (w._vteq = Array.isArray(w._vteq) ? w._vteq : []);
  const early = queue.splice(0);
  queue.push = (...items) => (items.forEach(take), 0);

  if (refused) {
    open();
    stop();
    return;
  }
  if (data.auto != "off") {
    const moved = safe(() => {
      if (here() == seen) return;
      clearTimeout(moving);
      moving = setTimeout(safe(() => page()), BATCH_MS); // the new page's title is not there yet
    });
    const push = history.pushState;
    history.pushState = function (...given) {
      push.apply(this, given);
      moved();
    };
    on("popstate", moved);
    on("pageshow", (event) => event.persisted && page()); // back out of the browser's memory
  }
  on("visibilitychange", () => d.hidden && leave(!("keepalive" in Request.prototype)), d);
  on("pagehide", () => {
    leave(true);
    gone = true;
  });
  on("pageshow", () => (gone = false));
  on("online", () => {
    seconds = RETRY_SECONDS_MIN;
    if (state == "on") drain();
  });
  on("storage", (event) => event.key == OFF && event.newValue && stop());
  if (data.consent != "required") safe(start)();
  if (data.auto != "off") safe(page)();
  early.forEach(take);
})();
