"use strict";
// The answer of a cell: "" is not judged yet, "class:NAME" is a class, "leave out" is no cell.
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

function quoted(text) {
  return '"' + text.replaceAll('"', '""') + '"';
}

function corrections() {
  const rows = cells.flatMap((cell, i) =>
    answers[i].startsWith("class:")
      ? [[cell.dataset.file, answers[i].slice("class:".length), cell.dataset.predicted]]
      : [],
  );
  return [["file", "label", "predicted"], ...rows].map((row) => row.map(quoted).join(",") + "\n").join("");
}

cells.forEach((cell, i) => {
  const tick = cell.querySelector("input");
  tick.addEventListener("change", () => answer(i, tick.checked ? "class:" + cell.dataset.predicted : ""));
  const select = cell.querySelector("select");
  select.addEventListener("change", () => answer(i, select.value));
});

save.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([corrections()], { type: "text/csv" }));
  link.download = "corrections.csv";
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});

clear.addEventListener("click", () => {
  if (confirm("Forget all judgments on this page?")) {
    answers = cells.map(() => "");
    keep();
    show();
  }
});

show();
