"use strict";
const dark = matchMedia("(prefers-color-scheme: dark)");

// Colors of the page's theme, for every axis of a figure.
function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim();
  const line = style.getPropertyValue("--line").trim();
  const copy = structuredClone(layout);
  if (matchMedia("(pointer: coarse)").matches) copy.dragmode = false; // a finger scrolls the page
  copy.font = { color: ink, size: 12, family: getComputedStyle(document.body).fontFamily };
  for (const name of Object.keys(copy)) {
    if (/^[xy]axis/.test(name)) Object.assign(copy[name], { gridcolor: line, zerolinecolor: line, linecolor: line });
  }
  return copy;
}

// Spreads are drawn in the ink of the theme; plotly's own gray is lost on a dark ground.
function spread(trace) {
  const color = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  return trace.error_x ? { ...trace, error_x: { ...trace.error_x, color } } : trace;
}

function draw() {
  for (const [name, figure] of Object.entries(FIGURES)) {
    const options = { responsive: true, displaylogo: false, displayModeBar: false };
    Plotly.react(name, figure.data.map(spread), themed(figure.layout), options);
  }
}

// A click on a header sorts the rows by that column: numbers by their value, words by the alphabet.
function sortBy(header) {
  const table = header.closest("table");
  const column = [...header.parentNode.children].indexOf(header);
  const up = header.getAttribute("aria-sort") !== "ascending";
  const value = (row) => row.children[column].dataset.value ?? row.children[column].textContent;
  const order = (a, b) => {
    const [x, y] = [value(a), value(b)];
    const numbers = x - y;
    return Number.isNaN(numbers) ? x.localeCompare(y) : numbers;
  };
  const rows = [...table.tBodies[0].rows].sort((a, b) => (up ? order(a, b) : order(b, a)));
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  table.tBodies[0].append(...rows);
}

for (const header of document.querySelectorAll("th[aria-sort]")) {
  header.addEventListener("click", () => sortBy(header));
  header.addEventListener("keydown", (event) => event.key === "Enter" && sortBy(header));
}
// Words typed above a table of layers keep the rows that have them all; the box keeps the idle ones.
function filterRows(view) {
  const words = view.querySelector("input[type=search]").value.toLowerCase().split(/\s+/).filter(Boolean);
  const idle = view.querySelector("input[type=checkbox]")?.checked;
  const rows = [...view.querySelector("tbody").rows];
  for (const row of rows) {
    const text = [...row.cells].map((cell) => cell.textContent.toLowerCase()).join(" ");
    row.hidden = !words.every((word) => text.includes(word)) || (idle && !row.classList.contains("idle"));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  view.querySelector(".shown").textContent = shown < rows.length ? `${shown} of ${rows.length} layers` : `${shown} layers`;
}

for (const view of document.querySelectorAll(".layer-table")) {
  view.querySelector(".filter").addEventListener("input", () => filterRows(view));
}
dark.addEventListener("change", draw);
draw();
