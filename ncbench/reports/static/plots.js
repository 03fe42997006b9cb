"use strict";
/* The plots of one protocol, by Plotly; loaded when the first of them is about to be seen. */
ncbench.plots = (() => {
  const { make, role, roles } = ncbench.dom;
  const FIRST = 8; // models that are plotted before anybody chooses
  // Okabe and Ito's colours, made lighter for dark pages: told apart with any colour vision
  const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#3a9bd9", "#7b5ea7", "#767676"];
  const DARK = ["#4aa8e0", "#f08a4b", "#35c39a", "#e3a3c8", "#e0b64a", "#8fd0f5", "#b39ddb", "#b0b0b0"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"];
  let library = null;

  function plotly() {
    library ??= new Promise((resolve, reject) => {
      const script = make("script", { src: "static/plotly.min.js" });
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error("static/plotly.min.js is missing from this folder"));
      document.head.append(script);
    });
    return library;
  }

  function style(place) {
    const colours = ncbench.theme.isDark() ? DARK : LIGHT;
    return {
      colour: colours[place % colours.length],
      dash: DASHES[Math.floor(place / colours.length) % DASHES.length],
      symbol: SYMBOLS[place % SYMBOLS.length],
    };
  }

  function themed(layout, rows) {
    const [text, soft, line, surface] = ["text", "soft", "line", "surface"].map(ncbench.theme.colour);
    const axis = (own) => ({ gridcolor: line, linecolor: line, zerolinecolor: line, tickfont: { color: soft, size: 11 }, automargin: true, ...own, title: own?.title && { ...own.title, font: { size: 12, color: soft }, standoff: 8 } });
    return {
      ...layout, xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis), showlegend: false, dragmode: false,
      height: Math.max(300, 60 + 26 * rows), margin: { l: 48, r: 16, t: 16, b: 44, ...layout.margin },
      paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { family: "system-ui, sans-serif", size: 12, color: text },
      hoverlabel: { bgcolor: surface, bordercolor: line, font: { color: text } },
    };
  }

  const CONFIG = { displayModeBar: false, responsive: true };

  /* ---- one protocol's section ---- */

  function start(section, protocol) {
    const chosen = new Set(protocol.models.map((_, index) => index).slice(0, FIRST));
    const visible = new Set();

    const order = () => [...chosen].sort((one, two) => one - two);
    const styles = () => new Map(order().map((model, place) => [model, style(place)]));

    async function draw(card) {
      const kind = card.dataset.plot;
      const place = role(card, "plot");
      const rows = ["strip", "slices", "area"].includes(kind) ? chosen.size : 0;
      const figure = ncbench.figures[kind](protocol, order(), styles());
      role(card, "nothing").hidden = Boolean(figure);
      place.hidden = !figure;
      if (!figure) return;
      const Plotly = await plotly();
      await Plotly.react(place, figure.data, themed(figure.layout, rows), CONFIG);
      card.dataset.drawn = [...chosen].length;
    }

    function redraw() {
      ncbench.leaderboard.mark(section, styles());
      const now = styles();
      for (const chip of roles(section, "chip")) {
        const model = Number(chip.dataset.model);
        chip.setAttribute("aria-pressed", chosen.has(model));
        chip.style.setProperty("--swatch", now.get(model)?.colour ?? "transparent");
      }
      for (const card of visible) draw(card).catch((error) => complain(card, error));
    }

    function complain(card, error) {
      const place = role(card, "nothing");
      place.textContent = error.message;
      place.hidden = false;
    }

    const chips = role(section, "chips");
    protocol.models.forEach((model, index) => {
      const chip = make("button", { type: "button", class: "chip", "data-role": "chip", "data-model": index }, make("span", { class: "swatch", "aria-hidden": "true" }), model.title);
      chip.addEventListener("click", () => {
        if (!chosen.delete(index)) chosen.add(index);
        redraw();
      });
      chips.append(chip);
    });
    for (const card of section.querySelectorAll("[data-plot]")) {
      ncbench.dom.whenNear(card, () => {
        visible.add(card);
        draw(card).catch((error) => complain(card, error));
      });
    }
    ncbench.theme.onChange(redraw);
    redraw();
  }

  return { start };
})();
