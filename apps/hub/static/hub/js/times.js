// Times in the reader's own zone, with their age beside them. The server writes UTC into <time>.

const SHORT = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat([], { month: "short", day: "numeric" });
const FULL = new Intl.DateTimeFormat([], { dateStyle: "full", timeStyle: "long" });
const AGE = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const STEPS = [
  [60, "second", 1],
  [3600, "minute", 60],
  [86400, "hour", 3600],
  [2592000, "day", 86400],
  [31536000, "month", 2592000],
  [Infinity, "year", 31536000],
];

function age(date) {
  const seconds = (date - Date.now()) / 1000;
  if (Math.abs(seconds) < 5) return "now";
  const [, unit, size] = STEPS.find(([limit]) => Math.abs(seconds) < limit);
  return AGE.format(Math.round(seconds / size), unit);
}

function localise(time) {
  const date = new Date(time.dateTime);
  if (time.dataset.form === "log") {
    time.textContent = `${SHORT.format(date)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
    time.title = FULL.format(date);
    time.dataset.local = "";
    return;
  }
  const today = date.toDateString() === new Date().toDateString();
  time.textContent = today || time.dataset.form === "clock" ? SHORT.format(date) : `${DAY.format(date)}, ${SHORT.format(date).slice(0, 5)}`;
  time.title = FULL.format(date);
  time.dataset.local = "";
}

function refresh() {
  for (const time of document.querySelectorAll("time[datetime]:not([data-local])")) localise(time);
  for (const part of document.querySelectorAll("[data-age]")) part.textContent = age(new Date(part.dataset.age));
  for (const part of document.querySelectorAll("[data-since]")) {
    const seconds = Math.max(0, Math.floor((Date.now() - new Date(part.dataset.since)) / 1000));
    part.textContent = seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  }
}

let waiting = false;
function soon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    refresh();
  });
}

refresh();
setInterval(refresh, 1000);
document.addEventListener("htmx:after:swap", soon);
addEventListener("aos:added", soon);
