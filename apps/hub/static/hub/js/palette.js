// The command palette: a dialog with one field; the server answers what matches.

const dialog = document.getElementById("aos-palette");
const field = dialog?.querySelector("input");
const list = dialog?.querySelector("[role=listbox]");
// Enter was pressed before the answer came.
let hurried = false;

function options() {
  return [...list.querySelectorAll("[role=option]")];
}

function select(option) {
  for (const other of options()) other.setAttribute("aria-selected", String(other === option));
  if (option) {
    field.setAttribute("aria-activedescendant", option.id);
    option.scrollIntoView({ block: "nearest" });
  } else {
    field.removeAttribute("aria-activedescendant");
  }
}

// What the shown results answer.
function answered() {
  return list.querySelector("[data-query]")?.dataset.query;
}

function go() {
  hurried = false;
  const chosen = options().find((option) => option.getAttribute("aria-selected") === "true");
  if (chosen?.dataset.href) location.assign(chosen.dataset.href);
}

function open() {
  if (dialog.open) return;
  dialog.showModal();
  hurried = false;
  field.value = "";
  field.dispatchEvent(new Event("aos:open"));
}

function move(step) {
  const all = options();
  const at = all.findIndex((option) => option.getAttribute("aria-selected") === "true");
  select(all[(at + step + all.length) % all.length]);
}

if (dialog) {
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      open();
    }
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-palette]")) open();
    const option = event.target.closest("#aos-palette [role=option]");
    if (option?.dataset.href) location.assign(option.dataset.href);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      move(event.key === "ArrowDown" ? 1 : -1);
    }
    if (event.key === "Enter") {
      event.preventDefault();
      if (answered() === field.value.trim()) go();
      else hurried = true; // The answer is on its way: go when it is there.
    }
  });
  // Opened before htmx had bound the field, the first question went unheard.
  field.addEventListener("htmx:after:init", () => {
    if (dialog.open && answered() === undefined) field.dispatchEvent(new Event("aos:open"));
  });
  field.addEventListener("htmx:after:swap", () => {
    select(options()[0]);
    if (hurried && answered() === field.value.trim()) go();
  });
}
