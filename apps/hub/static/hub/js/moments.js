// Moments that are typed: shown in the reader's own zone, sent in UTC, so that an address means the
// same everywhere. Without this file they are typed in UTC.

const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

function local(moment) {
  const shifted = new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, 16);
}

function take(field) {
  const sent = document.createElement("input");
  sent.type = "hidden";
  sent.name = field.name;
  field.removeAttribute("name");
  field.after(sent);
  if (field.value) {
    const moment = new Date(`${field.value}Z`);
    sent.value = moment.toISOString();
    field.value = local(moment);
  }
  field.addEventListener("change", () => {
    sent.value = field.value ? new Date(field.value).toISOString() : "";
  });
}

function takeAll() {
  for (const field of document.querySelectorAll("[data-moment][name]")) take(field);
  for (const word of document.querySelectorAll("[data-moment-zone]")) word.textContent = ZONE;
}

takeAll();
document.addEventListener("htmx:after:swap", takeAll);
