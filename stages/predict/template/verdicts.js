// Shows verdicts page by page: however many images there are, the page holds the cards of PAGE of them.
"use strict";

const PAGE = 60;
const { threshold, images } = JSON.parse(document.getElementById("rows").textContent);
const rows = images.map((image) => (
  { ...image, folder: folderOf(image.path), text: `${image.path} ${image.remarks}`.toLowerCase() }));
const byId = (id) => document.getElementById(id);
const buttons = [...document.querySelectorAll(".verdicts button")];
let found = rows;
let page = 0;

function folderOf(path) {
  const end = path.lastIndexOf("/");
  return end < 0 ? "." : path.slice(0, end) || "/";
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function meter(probability) {
  const made = element("div", "meter");
  made.innerHTML = '<svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true"><rect height="1"/><line y1="-0.5" y2="1.5"/></svg>';
  made.querySelector("rect").setAttribute("width", probability);
  for (const end of ["x1", "x2"]) made.querySelector("line").setAttribute(end, threshold);
  return made;
}

function card(row) {
  const made = element("li", row.verdict);
  made.tabIndex = -1;
  let picture = element("span", "none", row.verdict === "failed" ? "not read" : "no preview");
  if (row.picture) {
    picture = element("img");
    picture.src = `data:image/webp;base64,${row.picture}`;
    picture.alt = "";
  }
  const facts = element("div");
  facts.append(element("b", "", row.verdict));
  if (row.probability !== null) {
    facts.append(` p = ${row.probability.toFixed(4)}`, meter(row.probability));
    if (row.spread !== null) facts.append(element("p", "spread", `spread ${row.spread.toFixed(4)}`));
  }
  for (const remark of row.remarks) facts.append(element("p", "remark", remark));
  facts.append(element("p", "path", row.path));
  made.append(picture, facts);
  return made;
}

function show(first) {
  const pages = Math.max(Math.ceil(found.length / PAGE), 1);
  page = Math.min(Math.max(first, 0), pages - 1);
  const shown = found.slice(page * PAGE, (page + 1) * PAGE);
  byId("cards").replaceChildren(...shown.map(card));
  const range = shown.length ? `${page * PAGE + 1} to ${page * PAGE + shown.length} of ` : "";
  byId("shown").textContent = `${range}${found.length.toLocaleString("en")} image${found.length === 1 ? "" : "s"}`;
  byId("previous").disabled = page === 0;
  byId("next").disabled = page === pages - 1;
  const active = byId("cards").firstElementChild;
  if (active) active.tabIndex = 0;
}

function filter() {
  const verdicts = new Set(buttons.filter((each) => each.ariaPressed === "true").map((each) => each.value));
  const folder = byId("folder").value;
  const words = byId("search").value.toLowerCase().trim();
  found = rows.filter((row) => verdicts.has(row.verdict) && (!folder || row.folder === folder) && row.text.includes(words));
  show(0);
}

function turn(by) {
  show(page + by);
  byId("cards").firstElementChild?.focus();
}

function move(by) {
  const cards = [...byId("cards").children];
  const at = cards.indexOf(document.activeElement) + by;
  if (at < 0 && page > 0) {
    show(page - 1);
    byId("cards").lastElementChild.focus();
  } else if (at >= cards.length && !byId("next").disabled) {
    turn(1);
  } else {
    cards[Math.min(Math.max(at, 0), cards.length - 1)]?.focus();
  }
}

function toggle(button) {
  button.ariaPressed = button.ariaPressed === "true" ? "false" : "true";
  filter();
}

const KEYS = {
  ArrowRight: () => move(1), ArrowDown: () => move(1), ArrowLeft: () => move(-1), ArrowUp: () => move(-1),
  PageDown: () => turn(1), PageUp: () => turn(-1), "/": () => byId("search").focus(),
};
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input") || (event.target.matches("select") && event.key !== "/");
  if (typing || event.ctrlKey || event.altKey || event.metaKey) return;
  const action = KEYS[event.key] ?? (buttons[Number(event.key) - 1] && (() => toggle(buttons[Number(event.key) - 1])));
  if (action) {
    event.preventDefault();
    action();
  }
});
byId("search").addEventListener("keydown", (event) => { if (event.key === "Escape" || event.key === "Enter") event.target.blur(); });
byId("filters").addEventListener("submit", (event) => event.preventDefault());
for (const name of ["input", "change"]) byId("filters").addEventListener(name, filter);
buttons.forEach((each) => each.addEventListener("click", () => toggle(each)));
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));

const folders = new Map();
for (const row of rows) folders.set(row.folder, (folders.get(row.folder) ?? 0) + 1);
for (const [name, count] of [...folders].sort()) byId("folder").append(new Option(`${name} (${count})`, name));
show(0);
