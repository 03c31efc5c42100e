"use strict";
// What a person says of a cell: "" is not judged yet, "class:NAME" is a class, "leave out" is no cell.

// Return the rows of a manifest that train, evaluate and audit read: the judged cells that are cells.
function correctionsTable(judgments) {
  const judged = judgments.filter(({ answer }) => answer.startsWith("class:"));
  const rows = judged.map(({ file, answer, predicted }) => [file, answer.slice("class:".length), predicted]);
  return [["file", "label", "predicted"], ...rows];
}

function quoted(text) {
  return '"' + text.replaceAll('"', '""') + '"';
}

function saveCsv(name, rows) {
  const text = rows.map((row) => row.map(quoted).join(",") + "\n").join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
