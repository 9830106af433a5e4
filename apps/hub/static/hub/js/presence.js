// What follows from a key or a click says so to the server: it keeps the person signed in. What a page
// asks by itself does not.

const FOLLOWS_MS = 5_000;
let acted = -Infinity;

for (const kind of ["pointerdown", "keydown"]) {
  document.addEventListener(kind, () => (acted = performance.now()), { capture: true, passive: true });
}

document.addEventListener("htmx:config:request", (event) => {
  if (performance.now() - acted < FOLLOWS_MS) event.detail.ctx.request.headers["X-Acted"] = "1";
});
