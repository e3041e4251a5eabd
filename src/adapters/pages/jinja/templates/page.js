"use strict";
const all = (query, within = document) => [...within.querySelectorAll(query)];

// Window: shares of the drawn levels become black and white, by CSS filters: brightness(m) contrast(c) maps a grey g to c m g + (1 - c) / 2.
for (const panel of all("[data-levels]")) {
  const [low, high] = panel.dataset.levels.split(" ").map(Number);
  const black = panel.querySelector("[name=black]"), white = panel.querySelector("[name=white]");
  const show = () => {
    const from = Number(black.value), to = Math.max(Number(white.value), from + 0.002);
    const contrast = 1 + (2 * from) / (to - from);
    const filter = `brightness(${1 / (to - from) / contrast}) contrast(${contrast})`;
    for (const image of all(".grey")) image.style.filter = filter;
    for (const [input, share] of [[black, from], [white, to]]) {
      input.nextElementSibling.value = Number((low + share * (high - low)).toPrecision(4));
    }
  };
  black.addEventListener("input", () => { white.value = Math.max(white.value, black.value); show(); });
  white.addEventListener("input", () => { black.value = Math.min(black.value, white.value); show(); });
  panel.querySelector("[name=reset]").addEventListener("click", () => {
    for (const input of [black, white]) input.value = input.defaultValue;
    show();
  });
  show();
}

// Toggles: layers of the same number are shown and hidden together.
const toggles = all("[data-toggle]");
const toggle = (box) => { for (const layer of all(`[data-layer="${box.dataset.toggle}"]`)) layer.hidden = !box.checked; };
for (const box of toggles) { box.addEventListener("input", () => toggle(box)); toggle(box); }
for (const button of all("[data-all]")) {
  button.addEventListener("click", () => {
    for (const box of toggles) { box.checked = button.dataset.all === "show"; toggle(box); }
  });
}
for (const size of all("[name=size]")) {
  size.addEventListener("input", () => document.documentElement.style.setProperty("--edge", `${size.value}px`));
}

// Tables: a button in a heading sorts by its column; what is undefined comes last.
const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
for (const button of all("th button")) {
  const heading = button.parentElement, table = heading.closest("table"), column = heading.cellIndex;
  button.addEventListener("click", () => {
    const up = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: rated(row, column) ?? value(row, column) }));
    const numbers = rows.every((r) => r.value === "" || Number.isFinite(Number(r.value)));
    rows.sort((a, b) => {
      if (a.value === "" || b.value === "") return (a.value === "") - (b.value === "");
      const order = numbers ? a.value - b.value : a.value.localeCompare(b.value, undefined, { numeric: true });
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows.map((r) => r.row));
  });
}
function rated(row, column) {
  const control = row.cells[column].querySelector("select, input");
  return control ? control.value : null;
}

// Ratings: kept by the browser for each mask, and written to a CSV file.
const raters = all("[data-key]");
const controls = (rater) => ["rating", "comment"].map((name) => rater.querySelector(`[name=${name}]`));
function count() {
  for (const place of all("[data-count]")) {
    place.textContent = raters.filter((rater) => controls(rater)[0].value === place.dataset.count).length;
  }
}
for (const rater of raters) {
  const [rating, comment] = controls(rater), key = `voxport-rating:${rater.dataset.key}`;
  let text = null, kept = null;
  try { text = localStorage.getItem(key); } catch { for (const note of all("[data-forgetful]")) note.hidden = false; }
  try { kept = JSON.parse(text); } catch { /* not of this page */ }
  rating.value = ["accept", "reject"].includes(kept?.rating) ? kept.rating : "";
  comment.value = typeof kept?.comment === "string" ? kept.comment : "";
  const keep = () => {
    count();
    try { localStorage.setItem(key, JSON.stringify({ rating: rating.value, comment: comment.value })); } catch { /* said above */ }
  };
  rating.addEventListener("input", keep);
  comment.addEventListener("input", keep);
}
count();
const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
for (const button of all("[name=export]")) {
  button.addEventListener("click", () => {
    const rows = raters.map((rater) => [rater.dataset.case, ...controls(rater).map((control) => control.value)]);
    const lines = [["case", "rating", "comment"], ...rows].map((row) => `${row.map(cell).join(",")}\n`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
    link.download = "ratings.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
