"use strict";
/* What each plot shows, as Plotly has it: (protocol, chosen models, their styles) -> {data, layout}, or null for none. */
ncbench.figures = (() => {
  const DAY = [[0, "#f4fafc"], [0.5, "#7db8d6"], [1, "#0b3c5d"]];
  const NIGHT = [[0, "#1b222a"], [0.5, "#2f7ba3"], [1, "#c9ecff"]];

  const plain = (text) => text.replace(/[<>&]/g, " "); // Plotly reads a little markup
  const clipped = (text, length) => plain(text.length > length ? `${text.slice(0, length - 1)}…` : text);
  const title = (text) => ({ title: { text: plain(text) } });
  const named = (protocol, models) => ({ type: "category", tickvals: models, ticktext: models.map((m) => clipped(protocol.models[m].title, 22)), automargin: true });
  const unit = (metric) => (metric.degrees ? ", degrees" : "");

  const lines = (protocol, chosen, styles, y) => chosen.filter((m) => y(protocol.models[m])).map((m) => ({
    type: "scatter", mode: "lines", name: plain(protocol.models[m].title), y: y(protocol.models[m]),
    line: { color: styles.get(m).colour, dash: styles.get(m).dash, width: 2 },
  }));

  function curve(protocol, chosen, styles) {
    const data = lines(protocol, chosen, styles, (model) => model.curve);
    data.forEach((one) => Object.assign(one, { x: protocol.curve, hovertemplate: "below %{x}°: %{y:.1f} %" }));
    const layout = { xaxis: title("Threshold, degrees"), yaxis: { ...title("Pixels below it, %"), range: [0, 101] }, hovermode: "x unified" };
    return data.length ? { data, layout } : null;
  }

  function area(protocol, chosen, styles) {
    const models = chosen.filter((m) => protocol.models[m].area !== null).reverse();
    if (!models.length) return null;
    const data = [{
      type: "bar", orientation: "h", x: models.map((m) => protocol.models[m].area), y: models,
      text: models.map((m) => protocol.models[m].area.toFixed(1)), textposition: "auto", cliponaxis: false,
      customdata: models.map((m) => plain(protocol.models[m].title)), hovertemplate: "%{customdata}: %{x:.2f} %<extra></extra>",
      marker: { color: models.map((m) => styles.get(m).colour) },
    }];
    return { data, layout: { xaxis: { ...title(`Area under the curve to ${protocol.areaLimit}°, %`), range: [0, 100] }, yaxis: named(protocol, models), bargap: 0.35 } };
  }

  function histogram(protocol, chosen, styles) {
    const data = lines(protocol, chosen, styles, (model) => model.histogram);
    data.forEach((one) => {
      one.y = [...one.y, one.y.at(-1)].map((share) => share || null); // the last step's end; a logarithm has no place for 0
      one.x = one.y.map((_, degree) => degree);
      Object.assign(one.line, { shape: "hv", width: 1.5 });
      one.hovertemplate = "from %{x}°: %{y:.2~g} %";
    });
    const layout = { xaxis: title("Angular error, degrees"), yaxis: { ...title("Pixels per degree, %"), type: "log", dtick: 1 }, hovermode: "x unified" };
    return data.length ? { data, layout } : null;
  }

  function points(protocol, chosen, styles, x, y, layout) {
    const models = chosen.filter((m) => x(protocol.models[m]) !== null && y(protocol.models[m]) !== null);
    const scale = layout.xaxis.type === "log" ? Math.log10 : (value) => value;
    const sides = labelSides(models.map((m) => [scale(x(protocol.models[m])), y(protocol.models[m])]), layout.xaxis.rangemode === "tozero");
    const data = models.map((m, index) => {
      const model = protocol.models[m];
      const { colour, symbol } = styles.get(m);
      return {
        type: "scatter", mode: "markers+text", name: plain(model.title), x: [x(model)], y: [y(model)], text: [`\u2002${clipped(model.title, 24)}\u2002`],
        textposition: sides[index], textfont: { size: 11 }, cliponaxis: false,
        marker: { color: colour, size: 11, symbol: model.control ? `${symbol}-open` : symbol, line: { width: 2, color: colour } },
        hovertemplate: `%{x:.4~g}, %{y:.4~g}${model.device ? " (" + plain(model.device) + ")" : ""}`,
      };
    });
    return data.length ? { data, layout } : null;
  }

  /** Put each point's name on the side where it covers the fewest other points and names. */
  function labelSides(places, fromZero) {
    const ends = [0, 1].map((axis) => {
      const values = places.map((place) => place[axis]);
      const low = fromZero || axis === 1 ? 0 : Math.min(...values);
      return [low, Math.max(...values) - low || 1];
    });
    const at = places.map((place) => place.map((value, axis) => (value - ends[axis][0]) / ends[axis][1]));
    const [wide, high] = [0.28, 0.07]; // of the plot; names are of about this size
    const boxes = at.map(([x, y]) => [x - 0.02, x + 0.02, y - 0.03, y + 0.03]);
    const covers = (one, two) => one[0] < two[1] && two[0] < one[1] && one[2] < two[3] && two[2] < one[3];
    return at.map(([x, y], index) => {
      const sides = {
        "middle right": [x + 0.02, x + 0.02 + wide, y - high / 2, y + high / 2],
        "middle left": [x - 0.02 - wide, x - 0.02, y - high / 2, y + high / 2],
        "top center": [x - wide / 2, x + wide / 2, y + 0.03, y + 0.03 + high],
        "bottom center": [x - wide / 2, x + wide / 2, y - 0.03 - high, y - 0.03],
      };
      const cost = (box) => boxes.filter((other, k) => k !== index && covers(box, other)).length + (box[0] < -0.05 || box[1] > 1.1 || box[2] < -0.05 ? 2.5 : 0);
      const [side, box] = Object.entries(sides).reduce((best, one) => (cost(one[1]) < cost(best[1]) ? one : best));
      boxes.push(box);
      return side;
    });
  }

  const flicker = (protocol, chosen, styles) => protocol.flicker && points(
    protocol, chosen, styles, (m) => m.value, (m) => m.flicker,
    { xaxis: { ...title(`${protocol.metric.label}${unit(protocol.metric)}`), rangemode: "tozero" }, yaxis: { ...title(`${protocol.flicker.label}${unit(protocol.flicker)}`), rangemode: "tozero" } },
  );

  const speed = (protocol, chosen, styles) => points(
    protocol, chosen, styles, (m) => m.fps, (m) => m.value,
    { xaxis: { ...title("Frames per second"), type: "log" }, yaxis: { ...title(`${protocol.metric.label}${unit(protocol.metric)}`), rangemode: "tozero" } },
  );

  function strip(protocol, chosen, styles) {
    const models = chosen.filter((m) => protocol.sequences.values[m]).reverse();
    const data = models.map((m, place) => {
      const values = protocol.sequences.values[m];
      const { colour, symbol } = styles.get(m);
      return {
        type: "scatter", mode: "markers", name: plain(protocol.models[m].title), x: values, y: values.map((_, k) => place + spread(k, values.length)),
        text: protocol.sequences.names.map(plain), hovertemplate: "%{text}: %{x:.2f}<extra></extra>",
        marker: { color: colour, symbol, size: 8, opacity: 0.75 },
      };
    });
    const layout = {
      xaxis: { ...title(`${protocol.metric.label} of a sequence${unit(protocol.metric)}`), rangemode: "tozero" },
      yaxis: { tickvals: models.map((_, k) => k), ticktext: models.map((m) => clipped(protocol.models[m].title, 22)), range: [-0.6, models.length - 0.4], zeroline: false },
    };
    return data.length ? { data, layout } : null;
  }

  /** Points of a row side by side in a fixed pattern, so that equal ones can be told apart. */
  const spread = (k, n) => (n < 2 ? 0 : 0.5 * ((k * 0.618034) % 1) - 0.25);

  function slices(protocol, chosen) {
    if (!protocol.slices) return null;
    const models = chosen.filter((m) => protocol.slices.values[m].some((value) => value !== null)).reverse();
    if (!models.length) return null;
    // one empty column between groups, under each group its name
    const columns = [];
    const groups = new Map();
    protocol.slices.columns.forEach(([name, bin, share], index) => {
      if (columns.length && !groups.has(name)) columns.push(null);
      groups.set(name, [...(groups.get(name) ?? []), columns.length]);
      columns.push({ index, bin, words: `${plain(name.replaceAll("_", " "))} ${plain(bin)}, ${share} % of the pixels` });
    });
    const values = models.map((m) => columns.map((column) => column && protocol.slices.values[m][column.index]));
    const z = values.map((row) => row.map((value) => (value === null ? null : Math.log10(Math.max(value, 0.1))))); // ratios matter
    const ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100];
    const data = [{
      type: "heatmap", z, text: values.map((row) => row.map((value) => value?.toFixed(1) ?? "")), x: columns.map((_, k) => k), y: models,
      customdata: models.map((m, row) => columns.map((column, k) => column && `${column.words}: ${plain(protocol.models[m].title)}, ${values[row][k]}°`)),
      hovertemplate: "%{customdata}<extra></extra>", hoverongaps: false,
      colorscale: ncbench.theme.isDark() ? NIGHT : DAY, texttemplate: models.length <= 16 ? "%{text}" : "", textfont: { size: 10 }, xgap: 1, ygap: 1,
      colorbar: { title: { text: "mean, degrees", side: "right", font: { size: 12 } }, tickvals: ticks.map(Math.log10), ticktext: ticks, thickness: 10, outlinewidth: 0 },
    }];
    const annotations = [...groups].map(([name, at]) => ({
      text: plain(name.replaceAll("_", " ")), x: (at[0] + at.at(-1)) / 2, y: 1, xref: "x", yref: "paper", yanchor: "bottom", showarrow: false,
    }));
    const ticked = columns.flatMap((column, k) => (column ? [k] : []));
    const layout = {
      xaxis: { tickvals: ticked, ticktext: ticked.map((k) => plain(columns[k].bin)), tickangle: -45, showgrid: false, zeroline: false },
      yaxis: { ...named(protocol, models), showgrid: false }, annotations, margin: { t: 28 },
    };
    return { data, layout };
  }

  return { curve, area, histogram, flicker, speed, strip, slices };
})();
