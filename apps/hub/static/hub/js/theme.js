// Runs before the first paint, so that a dark page never flashes white. Keep it small.
(() => {
  const KEY = "aos.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      return localStorage.getItem(KEY) || "system";
    } catch {
      return "system"; // Storage can be forbidden by the browser; the page then follows the system.
    }
  }

  function apply() {
    const theme = chosen();
    const dark = theme === "dark" || (theme === "system" && system.matches);
    document.documentElement.dataset.bsTheme = dark ? "dark" : "light";
    document.documentElement.dataset.aosTheme = theme;
  }

  apply();
  system.addEventListener("change", apply);
  addEventListener("storage", (event) => event.key === KEY && apply());
  addEventListener("aos:theme", (event) => {
    localStorage.setItem(KEY, event.detail);
    apply();
  });
})();
