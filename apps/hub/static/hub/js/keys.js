// Single keys: they work only outside fields and dialogs, and can be switched off in the help.

const KEY = "aos.keys";
const help = document.getElementById("aos-help");
const toggle = help?.querySelector("[data-keys-toggle]");

function enabled() {
  try {
    return localStorage.getItem(KEY) !== "off";
  } catch {
    return true;
  }
}

function step(direction) {
  const items = [...document.querySelectorAll("[data-step]")];
  if (!items.length) return;
  const at = items.indexOf(document.activeElement.closest?.("[data-step]"));
  // Without a place to start from: the newest card, which is the last.
  const next = at < 0 ? items.length - 1 : at + direction;
  items[Math.min(Math.max(next, 0), items.length - 1)].focus();
}

const ACTIONS = {
  "?": () => help.showModal(),
  "/": () => document.querySelector("[data-key-slash]")?.focus(),
  j: () => step(1),
  k: () => step(-1),
  o: () => document.activeElement.closest?.("[data-step]")?.querySelector("[data-step-open]")?.click(),
  r: () => document.querySelector("[data-key-rerun]")?.click(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !enabled()) return;
  if (event.target.closest("input, textarea, select, dialog, [contenteditable]")) return;
  const action = ACTIONS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

if (toggle) {
  toggle.checked = enabled();
  toggle.addEventListener("change", () => localStorage.setItem(KEY, toggle.checked ? "on" : "off"));
}
