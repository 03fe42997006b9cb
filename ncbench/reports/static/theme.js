"use strict";
/* Light or dark: the system's choice until the reader makes one. */
ncbench.theme = (() => {
  const listeners = [];
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = remembered();

  function remembered() {
    try {
      return localStorage.getItem("ncbench-theme");
    } catch {
      return null; // a browser may refuse storage to pages from disk
    }
  }

  const isDark = () => (chosen ? chosen === "dark" : system.matches);

  function apply() {
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
    for (const button of ncbench.dom.roles(document, "theme")) {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
    }
    for (const listener of listeners) listener();
  }

  function toggle() {
    chosen = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("ncbench-theme", chosen);
    } catch {
      // kept for this visit only
    }
    apply();
  }

  function start() {
    for (const button of ncbench.dom.roles(document, "theme")) button.addEventListener("click", toggle);
    system.addEventListener("change", apply);
    apply();
  }

  /** A colour of the style sheet as plain rgb. */
  function colour(name) {
    const sample = ncbench.dom.make("i", { style: `color: var(--${name})`, hidden: "" });
    document.body.append(sample);
    const found = getComputedStyle(sample).color;
    sample.remove();
    return found;
  }

  return { start, isDark, colour, onChange: (listener) => listeners.push(listener) };
})();
