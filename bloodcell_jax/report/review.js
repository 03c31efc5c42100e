"use strict";
// What a person says of each cell is explained in corrections.js.
const cells = [...document.querySelectorAll("#cells .cell")];
const key = "bloodcell-review-" + document.getElementById("cells").dataset.key;
const judged = document.getElementById("judged");
const save = document.getElementById("save");
const clear = document.getElementById("clear");
let answers = read();

function read() {
  let kept = null;
  try {
    kept = JSON.parse(localStorage.getItem(key));
    localStorage.setItem(key, JSON.stringify(kept)); // Some browsers refuse only this.
  } catch {
    document.getElementById("not-kept").hidden = false;
  }
  const whole = Array.isArray(kept) && kept.length === cells.length;
  return cells.map((cell, i) => (whole && offers(cell, kept[i]) ? kept[i] : ""));
}

function offers(cell, answer) {
  return [...cell.querySelector("select").options].some((option) => option.value === answer);
}

function keep() {
  try {
    localStorage.setItem(key, JSON.stringify(answers));
  } catch {
    document.getElementById("not-kept").hidden = false;
  }
}

function said(cell, answer) {
  if (answer === "") return "";
  if (answer === "leave out") return "✕ left out";
  const name = [...cell.querySelector("select").options].find((option) => option.value === answer).text;
  return (answer === "class:" + cell.dataset.predicted ? "✓ " : "→ ") + name;
}

function show() {
  cells.forEach((cell, i) => {
    cell.querySelector("input").checked = answers[i] === "class:" + cell.dataset.predicted;
    cell.querySelector("select").value = answers[i];
    cell.querySelector("output").textContent = said(cell, answers[i]);
    cell.toggleAttribute("data-judged", answers[i] !== "");
  });
  const done = answers.filter((answer) => answer !== "").length;
  const left = answers.filter((answer) => answer === "leave out").length;
  judged.textContent = `${done} of ${cells.length} cells judged` + (left ? `, ${left} of them left out` : "");
  save.disabled = done === left;
  clear.disabled = done === 0;
}

function answer(i, value) {
  answers[i] = value;
  keep();
  show();
}

function judgments() {
  return cells.map((cell, i) => ({ file: cell.dataset.file, answer: answers[i], predicted: cell.dataset.predicted }));
}

cells.forEach((cell, i) => {
  const tick = cell.querySelector("input");
  tick.addEventListener("change", () => answer(i, tick.checked ? "class:" + cell.dataset.predicted : ""));
  const select = cell.querySelector("select");
  select.addEventListener("change", () => answer(i, select.value));
});

save.addEventListener("click", () => saveCsv("corrections.csv", correctionsTable(judgments())));

clear.addEventListener("click", () => {
  if (confirm("Forget all judgments on this page?")) {
    answers = cells.map(() => "");
    keep();
    show();
  }
});

show();
