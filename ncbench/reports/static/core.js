"use strict";
/* What all other scripts share: data that loads on demand, small DOM helpers, numbers as text. */
window.ncbench = {};

ncbench.data = (() => {
  const loaded = new Map();
  const waiting = new Map();

  /** Called by the data scripts themselves. */
  function put(key, values) {
    loaded.set(key, values);
  }

  /** Load data/<key>.js once. A page opened from disk may run scripts, but fetch nothing. */
  function load(key) {
    if (!waiting.has(key)) {
      waiting.set(key, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `data/${key}.js`;
        script.onload = () => resolve(loaded.get(key));
        script.onerror = () => reject(new Error(`data/${key}.js is missing from this folder`));
        document.head.append(script);
      }));
    }
    return waiting.get(key);
  }

  return { put, load };
})();

ncbench.dom = (() => {
  /** Make an element; text is always text, never markup. */
  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  const role = (root, name) => root.querySelector(`[data-role="${name}"]`);
  const roles = (root, name) => [...root.querySelectorAll(`[data-role="${name}"]`)];

  /** Run once, when the element is about to be seen. */
  function whenNear(element, action) {
    const watcher = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        watcher.disconnect();
        action();
      }
    }, { rootMargin: "300px" });
    watcher.observe(element);
  }

  return { make, role, roles, whenNear };
})();

ncbench.text = {
  degrees: (value, digits = 1) => (value === null || Number.isNaN(value) ? "–" : `${value.toFixed(digits)}°`),
  count: (value) => value.toLocaleString("en"),
  vector: (values) => values.map((value) => value.toFixed(3).replace("-", "−")),
};
