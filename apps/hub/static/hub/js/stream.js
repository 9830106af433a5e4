// The Chat Hub's stream. A frame only says that something happened: the card is the server's.
//
// The first event is fetched at once, what follows within a second together, grouped by the server.
// Receipts and anomalies do not wait.

const stream = document.getElementById("aos-stream");
const pane = stream.closest("[data-pane]");
const pill = document.getElementById("aos-stream-jump");
const URGENT = new Set(["task.receipt", "anomaly.detected", "recovery.start", "recovery.done"]);
const WINDOW_MS = 1000;
const NEAR_PX = 80;

let shown = Number(stream.dataset.after);
let timer = null;
let fetching = null;
let again = false;
let failures = 0;
let lastFetch = 0;

function atBottom() {
  return pane.scrollHeight - pane.scrollTop - pane.clientHeight < NEAR_PX;
}

function toBottom() {
  pane.scrollTop = pane.scrollHeight;
  pill.hidden = true;
}

function plan({ urgent = false } = {}) {
  const wait = Math.max(0, lastFetch + WINDOW_MS - Date.now());
  if (urgent || wait === 0) {
    clearTimeout(timer);
    timer = null;
    fetchCards();
  } else {
    timer ??= setTimeout(() => {
      timer = null;
      fetchCards();
    }, wait);
  }
}

async function fetchCards() {
  if (fetching) {
    again = true;
    return fetching;
  }
  lastFetch = Date.now();
  fetching = append().finally(() => {
    fetching = null;
    if (!again) return;
    again = false;
    plan();
  });
  return fetching;
}

async function append() {
  const url = new URL(stream.dataset.cards, location.href);
  url.searchParams.set("after", String(shown));
  const asked = fetch(url, { headers: { "HX-Request": "true" }, redirect: "error" });
  const read = async (answer) => [answer, await answer.text()];
  const [answer, html] = await asked.then(read).catch(() => []);
  if (!answer || answer.status >= 429) {
    // Not now. The frame was heard and will not come again.
    setTimeout(plan, WINDOW_MS * 2 ** Math.min(failures++, 5));
    return;
  }
  failures = 0;
  if (!answer.ok || answer.status === 204) return;
  const upto = Number(answer.headers.get("X-Aos-Seq"));
  if (!(upto > shown)) return;
  shown = upto;
  const follow = atBottom();
  stream.querySelector("[data-empty]")?.remove();
  stream.insertAdjacentHTML("beforeend", html);
  htmx.process(stream);
  dispatchEvent(new CustomEvent("aos:added"));
  if (follow) toBottom();
  else pill.hidden = false;
}

addEventListener("aos:event", (event) => {
  const only = stream.dataset.run;
  if (only && event.detail.run !== only) return;
  plan({ urgent: URGENT.has(event.detail.type) });
});
// Too far behind, or woken after a sleep: ask for whatever is missing.
addEventListener("aos:resync", (event) => {
  if (event.detail.seq < shown) location.reload(); // The log is another one: a restored backup.
  else plan({ urgent: true });
});
addEventListener("aos:wake", () => plan());
pane.addEventListener("scroll", () => atBottom() && (pill.hidden = true), { passive: true });
pill.addEventListener("click", toBottom);

// A deep link to one card wins over the newest one.
if (!location.hash) toBottom();
