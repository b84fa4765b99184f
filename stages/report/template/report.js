// Makes the columns of every table.sortable sortable by mouse and keyboard; without it the page reads the same.
"use strict";

function keyOf(row, column) {
  const cell = row.cells[column];
  const value = cell.dataset.value;
  if (value === undefined) return cell.textContent.trim();
  return value === "" ? null : Number(value);
}

function sortBy(header, column) {
  const table = header.closest("table");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const numeric = rows.some((row) => typeof keyOf(row, column) === "number");
  const current = header.getAttribute("aria-sort");
  const descending = current === null ? numeric : current === "ascending";
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  rows.sort((a, b) => {
    const [x, y] = [keyOf(a, column), keyOf(b, column)];
    if (x === null || y === null) return (x === null) - (y === null); // what is undefined stays last
    const order = numeric ? x - y : compare(x, y);
    return descending ? -order : order;
  });
  table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...rows);
}

document.querySelectorAll("table.sortable").forEach((table) => {
  Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(header, column));
    header.append(button);
  });
});

// What is folded away on the screen is printed.
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
});
