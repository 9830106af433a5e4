// The project's value events over a WebSocket. hx-ws keeps the socket; this file keeps the place.
//
// Every frame becomes an `aos:event` on window, once and in order. What was missed while the socket
// was down comes again, because the address asks for `after=<seq>`.

const source = document.getElementById("aos-live");
const WORDS = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  closed: "Not connected",
};
// Silent for this long when the page wakes up, a socket may be dead without knowing it.
const SUSPECT_MS = 45_000;

let seq = Number(source?.dataset.after ?? 0);
let connection = null;
let heard = Date.now();

function show(state) {
  for (const place of document.querySelectorAll("[data-live]")) {
    if (place.dataset.state === state) continue;
    place.dataset.state = state;
    place.querySelector(".aos-live-word").textContent = WORDS[state];
  }
}

function take(frame) {
  heard = Date.now();
  if (frame.type === "resync") {
    seq = frame.seq ?? seq;
    dispatchEvent(new CustomEvent("aos:resync", { detail: { seq } }));
    return;
  }
  if (!(frame.seq > seq)) return;
  seq = frame.seq;
  dispatchEvent(new CustomEvent("aos:event", { detail: frame }));
}

function wake() {
  if (document.hidden || !connection?.socket) return;
  dispatchEvent(new CustomEvent("aos:wake"));
  if (Date.now() - heard > SUSPECT_MS) connection.socket.close();
}

// What a page shows must not outlive the session: gone to again, it is the sign-in page.
async function leaveIfSignedOut() {
  const answer = await fetch(location.href, { redirect: "manual" });
  if (answer.type === "opaqueredirect") location.reload();
}

if (source) {
  source.addEventListener("htmx:ws:before:connection", (event) => {
    connection = event.detail.connection;
    const url = new URL(connection.url);
    url.searchParams.set("after", String(seq));
    connection.url = url.href;
  });
  source.addEventListener("htmx:ws:after:connection", () => {
    heard = Date.now();
    show("live");
  });
  source.addEventListener("htmx:ws:before:message:incoming", (event) => {
    event.preventDefault(); // Frames are data; hx-ws would swap their payload into the page.
    take(JSON.parse(event.detail.message.data));
  });
  source.addEventListener("htmx:ws:close", (event) => {
    const { connection: closed, code } = event.detail;
    const comesBack = closed.config.reconnectCodes.includes(code);
    show(comesBack ? "reconnecting" : "closed");
    if (!comesBack) leaveIfSignedOut();
  });
  // Only now: htmx may start before the listeners above stand.
  source.setAttribute("hx-ws:connect", source.dataset.socket);
  htmx.process(source);
  document.addEventListener("visibilitychange", wake);
  addEventListener("online", () => connection?.socket?.close());
  addEventListener("offline", () => show("reconnecting"));
}

// What shows a run is told when it changes, and asks for its new face.
addEventListener("aos:event", (event) => {
  const { run } = event.detail;
  if (!run) return;
  for (const place of document.querySelectorAll(`[data-follow="${CSS.escape(run)}"], [data-follow="any"]`)) {
    place.dispatchEvent(new Event("aos:changed"));
  }
});
