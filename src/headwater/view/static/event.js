// One event, by its id: the request beside it. A request's id is taken as well.

import { Refusal, api, empty, refuse, show, waiting } from "./frame.js";
import { inspectRequest, showRequest } from "./inspect.js";

const place = document.getElementById("inspected");
const ident = decodeURIComponent(location.pathname.split("/").filter(Boolean).pop());

async function start() {
  const done = waiting(place, "Reading the journal …");
  try {
    const found = await api(`/api/events/${encodeURIComponent(ident)}`);
    showRequest(place, found.request, { eventId: found.event_id });
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (error.status !== 404) { refuse(place, error); return; }
    try {
      await inspectRequest(place, ident);
    } catch {
      show(place, empty("There is no such event, and no such request.", "Its id stands on the page Live and in the answers of SQL; what was erased is gone."));
    }
  } finally {
    done();
  }
}

start();
