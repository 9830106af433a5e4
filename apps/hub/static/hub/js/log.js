// A run's own log, live: server-sent events with resume, filters, and a bottom that is never forced.

const log = document.getElementById("aos-log");
const pane = log.closest("[data-pane]");
const pill = document.getElementById("aos-log-jump");
const filter = document.getElementById("aos-log-filter");
const level = document.getElementById("aos-log-level");
const count = document.getElementById("aos-log-count");
const state = document.getElementById("aos-log-state");
const template = document.getElementById("aos-log-template").content.firstElementChild;
const live = document.getElementById("aos-run-live");
const KINDS = ["message", "tool", "todo", "log", "human_loop", "run"];
const SOURCES = { message: "milestone", todo: "plan" };
const RANK = { debug: 0, info: 1, warn: 2, error: 3 };
const FINAL = new Set(["succeeded", "failed", "cancelled", "expired", "dead"]);
const MAX_LINES = 5000;
const NEAR_PX = 60;
const RETRY_MS = [500, 1000, 2000, 4000, 8000];

let seq = Number(log.dataset.after);
let lines = Number(count.textContent);
let waiting = [];
let frame = null;
let failures = 0;
let over = false;
let stream = null;

function atBottom() {
  return pane.scrollHeight - pane.scrollTop - pane.clientHeight < NEAR_PX;
}

function toBottom() {
  pane.scrollTop = pane.scrollHeight;
  pill.hidden = true;
}

function matches(line) {
  const words = filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  if (RANK[line.dataset.level] < RANK[level.value]) return false;
  const text = line.textContent.toLowerCase();
  return words.every((word) => text.includes(word));
}

function refilter() {
  for (const line of log.children) line.hidden = !matches(line);
  document.getElementById("aos-log-none").hidden = ![...log.children].every((line) => line.hidden);
  toBottom();
}

// The same words as apps/hub/log.py gives to the lines that came with the page.
function transition(payload) {
  const parts = [`run ${payload.state === "running" ? "started" : (payload.state ?? "")}`];
  if (payload.attempt) parts.push(`attempt ${payload.attempt}`);
  if (payload.worker) parts.push(`on ${payload.worker}`);
  if (payload.retry_in_s) parts.push(`next attempt in ${payload.retry_in_s} s`);
  if (payload.error) parts.push(`${payload.error.code}: ${payload.error.detail}`);
  return parts.join(", ");
}

function text({ kind, payload }) {
  if (kind === "run") return transition(payload);
  if (kind === "todo") {
    const items = payload.items ?? [];
    return `${items.filter((item) => item.state === "done").length} of ${items.length} steps done`;
  }
  return payload.text ?? payload.title ?? "";
}

function line(event) {
  const row = template.cloneNode(true);
  const { payload, kind } = event;
  const rank = String(payload.level ?? "info").toLowerCase();
  row.dataset.seq = event.seq;
  row.dataset.kind = kind;
  row.dataset.level = rank in RANK ? rank : "info";
  row.querySelector("time").dateTime = event.at;
  row.querySelector(".aos-log-level").textContent = row.dataset.level;
  row.querySelector(".aos-log-source").textContent = payload.source ?? SOURCES[kind] ?? kind;
  row.querySelector(".aos-log-text").textContent = text(event);
  row.hidden = !matches(row);
  return row;
}

function flush() {
  frame = null;
  const follow = atBottom();
  log.append(...waiting);
  lines += waiting.length;
  waiting = [];
  while (log.children.length > MAX_LINES) log.firstElementChild.remove();
  count.textContent = String(lines);
  dispatchEvent(new CustomEvent("aos:added"));
  if (follow) toBottom();
  else pill.hidden = false;
}

function take(message) {
  const event = JSON.parse(message.data);
  failures = 0;
  if (!(event.seq > seq)) return;
  seq = event.seq;
  event.kind ??= message.type;
  waiting.push(line(event));
  // One paint for everything that arrived meanwhile: a script may print thousands of lines a second.
  frame ??= requestAnimationFrame(flush);
  if (event.kind !== "log") live?.dispatchEvent(new Event("aos:changed"));
  if (event.kind === "run" && FINAL.has(event.payload.state)) finish();
}

function finish() {
  over = true;
  stream?.close();
  state.textContent = "";
  live?.dispatchEvent(new Event("aos:changed"));
}

function connect() {
  const url = new URL(log.dataset.events, location.href);
  url.searchParams.set("after", String(seq));
  stream = new EventSource(url);
  stream.addEventListener("open", () => (state.textContent = "Following"));
  for (const kind of KINDS) stream.addEventListener(kind, take);
  stream.addEventListener("error", () => {
    if (over) return;
    // Our own retry instead of the browser's: it always resumes from the last line we have.
    stream.close();
    state.textContent = "Reconnecting";
    const delay = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)];
    failures += 1;
    setTimeout(connect, delay);
  });
}

filter.addEventListener("input", refilter);
level.addEventListener("change", refilter);
pill.addEventListener("click", toBottom);
pane.addEventListener("scroll", () => atBottom() && (pill.hidden = true), { passive: true });
toBottom();
if (log.dataset.final === "false") connect();
