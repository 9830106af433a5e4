// A plain text editor: line numbers, Tab that indents without trapping the keyboard, one file at a time.

const INDENT = "    ";
const form = document.getElementById("script-form");
const list = document.getElementById("script-files");
const tabs = document.querySelector("[data-file-tabs]");
let escaped = false;
let dirty = false;
let leaving = false;

function number(area) {
  const lines = area.parentElement.querySelector("[data-lines]");
  const count = area.value.split("\n").length;
  if (lines.childElementCount === count) return;
  lines.replaceChildren(
    ...Array.from({ length: count }, (_, index) => {
      const line = document.createElement("span");
      line.textContent = String(index + 1);
      return line;
    }),
  );
  lines.scrollTop = area.scrollTop;
}

// Through the browser's own editing, so that Ctrl Z takes it back.
function type(area, text) {
  if (text === "") document.execCommand("delete");
  else document.execCommand("insertText", false, text);
}

function lineStart(area) {
  return area.value.lastIndexOf("\n", area.selectionStart - 1) + 1;
}

function shift(area, outwards) {
  const from = lineStart(area);
  const to = area.selectionEnd;
  const before = area.value.slice(from, to);
  const after = before
    .split("\n")
    .map((line) => (outwards ? line.replace(/^( {1,4}|\t)/, "") : INDENT + line))
    .join("\n");
  if (after === before) return;
  area.setSelectionRange(from, to);
  type(area, after);
  area.setSelectionRange(from, from + after.length);
}

function indent(area, outwards) {
  const several = area.value.slice(area.selectionStart, area.selectionEnd).includes("\n");
  if (several || outwards) shift(area, outwards);
  else type(area, INDENT.slice((area.selectionStart - lineStart(area)) % INDENT.length));
}

function newLine(area) {
  const line = area.value.slice(lineStart(area), area.selectionStart);
  const [space] = line.match(/^[ \t]*/);
  type(area, `\n${space}${/[:{([]\s*$/.test(line) ? INDENT : ""}`);
}

function press(event) {
  const area = event.target;
  if (!area.matches?.("[data-editor] textarea") || area.readOnly) return;
  if (event.key === "Escape") {
    escaped = true;
    return;
  }
  if (event.key === "Tab" && !escaped && !event.ctrlKey && !event.altKey && !event.metaKey) {
    event.preventDefault();
    indent(area, event.shiftKey);
  } else if (event.key === "Enter" && !event.ctrlKey && !event.metaKey && !event.isComposing) {
    event.preventDefault();
    newLine(area);
  }
  if (event.key !== "Shift") escaped = false;
}

// --- one file at a time ---

function files() {
  return [...list.querySelectorAll("[data-file]")];
}

function nameOf(file) {
  return file.querySelector("[name=file-name]").value.trim() || "unnamed";
}

function show(chosen) {
  const all = files();
  tabs.hidden = all.length < 2;
  tabs.replaceChildren(
    ...all.map((file) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.className = "aos-script-tab";
      tab.textContent = nameOf(file);
      tab.setAttribute("aria-pressed", String(file === chosen));
      tab.addEventListener("click", () => show(file));
      return tab;
    }),
  );
  for (const file of all) file.hidden = file !== chosen;
  for (const area of list.querySelectorAll("textarea")) number(area);
}

function shown() {
  return files().find((file) => !file.hidden);
}

function remove(button) {
  const all = files();
  const file = button.closest("[data-file]");
  const next = all[all.indexOf(file) + 1] ?? all[all.indexOf(file) - 1];
  if (!next) return; // One file has to stay.
  file.remove();
  dirty = true;
  show(next);
}

if (form) {
  form.addEventListener("keydown", press);
  form.addEventListener("input", (event) => {
    dirty = true;
    if (event.target.matches("[data-editor] textarea")) number(event.target);
    if (event.target.name === "file-name") show(shown());
  });
  form.addEventListener(
    "scroll",
    ({ target }) => {
      const lines = target.parentElement?.querySelector("[data-lines]");
      if (lines) lines.scrollTop = target.scrollTop;
    },
    true,
  );
  form.addEventListener("click", (event) => {
    const button = event.target.closest("[data-file-remove]");
    if (button) remove(button);
  });
  // A file that was just added comes to the front.
  new MutationObserver((changes) => {
    const added = changes.flatMap((change) => [...change.addedNodes]).find((node) => node.dataset);
    if (added) show(added);
  }).observe(list, { childList: true });
  addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") {
      event.preventDefault();
      form.querySelector("[data-save]")?.click();
    }
  });
  document.addEventListener("submit", (event) => (leaving ||= event.target === form));
  addEventListener("beforeunload", (event) => {
    if (dirty && !leaving) event.preventDefault();
  });
  show(files()[0]);
}
