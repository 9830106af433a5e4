// Small parts of any page, by delegation: theme menu, copy, dialogs, short messages.

const toasts = document.getElementById("aos-toasts");
const LIFETIME_MS = 6000;
const AGAIN_MS = 3000;
const REFUSALS = {
  403: "You may not do that, or the page is too old: reload it.",
  404: "That is not there any more.",
  413: "That is larger than the server takes.",
};

function say(text, { tone = "ok" } = {}) {
  const toast = document.getElementById(`aos-toast-${tone}`).content.firstElementChild.cloneNode(true);
  toast.querySelector("[data-text]").textContent = text;
  toasts.append(toast);
  setTimeout(() => toast.remove(), LIFETIME_MS);
}

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    say(`${button.dataset.copyName || "Text"} copied`);
  } catch {
    // There is no clipboard without HTTPS or permission: show the text to be selected.
    say(button.dataset.copy, { tone: "warn" });
  }
}

function markTheme() {
  const theme = document.documentElement.dataset.aosTheme;
  for (const item of document.querySelectorAll("[data-theme-choice]")) {
    item.setAttribute("aria-pressed", String(item.dataset.themeChoice === theme));
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy) copy(button);
  if (button.dataset.dialog) document.getElementById(button.dataset.dialog).showModal();
  if ("close" in button.dataset) button.closest("dialog").close();
  if ("dismiss" in button.dataset) button.closest(".aos-toast").remove();
  if (button.dataset.themeChoice) {
    dispatchEvent(new CustomEvent("aos:theme", { detail: button.dataset.themeChoice }));
    markTheme();
    button.closest("[popover]")?.hidePopover();
  }
});

// A click on the backdrop is a click on the dialog itself.
document.addEventListener("click", (event) => {
  if (event.target.matches?.("dialog[open]")) event.target.close();
});

// One submission per form: a double click must not ask twice.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post" || event.target.matches("[hx-post]")) return;
  for (const button of event.target.querySelectorAll("button[type=submit]")) button.disabled = true;
});
// The back button may bring the page back as it was left.
addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("form[method=post] button[type=submit]:disabled")) {
    button.disabled = false;
  }
});

// A file the server would refuse is not sent.
document.addEventListener("change", (event) => {
  const limit = Number(event.target.dataset?.maxBytes);
  if (!limit) return;
  const [file] = event.target.files;
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  const tooLarge = file && file.size > limit;
  event.target.setCustomValidity(
    tooLarge ? `This file has ${megabytes(file.size)} MB; the limit is ${megabytes(limit)} MB.` : "",
  );
  event.target.reportValidity();
});

// What follows the events bothers nobody, but asks again.
function asksAgain({ target }) {
  if (target.dataset?.follow) setTimeout(() => target.dispatchEvent(new Event("aos:changed")), AGAIN_MS);
  return target.dataset?.follow;
}

addEventListener("aos:say", (event) => say(event.detail.text, event.detail));
document.addEventListener("htmx:response:error", (event) => {
  const { status, headers } = event.detail.ctx.response;
  if (status === 422) return; // The answer is the form with its errors; it is shown in place.
  if (status >= 429 && asksAgain(event)) return;
  if (status === 429) {
    const seconds = headers.get("Retry-After") ?? "a few";
    say(`That was too often. Wait ${seconds} seconds and try again.`, { tone: "warn" });
    return;
  }
  say(REFUSALS[status] ?? `The server answered ${status}. Try again.`, { tone: "bad" });
});
document.addEventListener("htmx:error", (event) => {
  if (event.detail.ctx?.response || asksAgain(event)) return;
  say("The server did not answer. Check your connection and try again.", { tone: "bad" });
});

// A fragment that was loaded into a dialog opens it.
document.addEventListener("htmx:after:swap", (event) => {
  const dialog = event.detail.ctx.target;
  if (dialog?.matches?.("dialog[data-open-on-swap]") && !dialog.open) dialog.showModal();
});

markTheme();
