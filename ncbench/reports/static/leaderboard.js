"use strict";
/* Sorting and filtering of a leaderboard that stands in the page already. */
ncbench.leaderboard = (() => {
  const { role, roles } = ncbench.dom;

  function start(section) {
    const table = role(section, "board");
    const body = table.tBodies[0];
    const rows = [...body.rows];
    for (const head of table.tHead.rows[0].cells) {
      head.querySelector("button").addEventListener("click", () => sort(table, body, rows, head));
    }
    const filter = role(section, "filter");
    filter.addEventListener("input", () => narrow(section, rows, filter.value));
    narrow(section, rows, filter.value);
  }

  /** The metric's better end first; the other end on a second click. Rows without a number stay last. */
  function sort(table, body, rows, head) {
    const column = head.cellIndex;
    const first = head.dataset.first;
    const direction = head.getAttribute("aria-sort") === first ? other(first) : first;
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const byText = head.dataset.kind === "text";
    const value = (row) => row.cells[column].dataset.value;
    const ordered = rows.map((row, index) => ({ row, index, value: value(row) }));
    ordered.sort((one, two) => {
      if (!byText && (one.value === "" || two.value === "")) return (one.value === "") - (two.value === "") || one.index - two.index;
      const difference = byText ? one.value.localeCompare(two.value) : Number(one.value) - Number(two.value);
      return sign * difference || one.index - two.index;
    });
    body.append(...ordered.map((item) => item.row));
  }

  const other = (direction) => (direction === "ascending" ? "descending" : "ascending");

  function narrow(section, rows, words) {
    const wanted = words.trim().toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.dataset.search.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    const all = rows.length === 1 ? "1 model" : `${rows.length} models`;
    role(section, "shown").textContent = shown === rows.length ? all : `${shown} of ${all}`;
    role(section, "nobody").hidden = shown > 0;
  }

  /** Paint the plots' colours beside the models that are plotted. */
  function mark(section, styles) {
    for (const swatch of roles(section, "swatch")) {
      const style = styles.get(Number(swatch.dataset.model));
      swatch.style.setProperty("--swatch", style ? style.colour : "transparent");
    }
  }

  return { start, mark };
})();
