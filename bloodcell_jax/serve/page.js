"use strict";
// The cells that were dropped, the model's answers and a person's corrections. They live in this page alone.

const AT_A_TIME = 200; // cells that are drawn, until more are asked for
const at = (id) => document.getElementById(id);
const LEFT_OUT = "leave out";

let model = null;
let cells = []; // in the order in which they came
let drawn = AT_A_TIME;
let turn = 0; // number of the drop
const saved = { corrections: true };
const work = { total: 0, done: 0, running: 0 };

// ---- the server

async function start() {
  const response = await fetch("/model");
  const facts = await response.json();
  const titles = new Map(facts.classes.map(({ name, title }) => [name, title]));
  model = { ...facts, title: (name) => titles.get(name) ?? name };
  at("model").textContent = facts.name + ".";
  while (!(await isReady())) await pause(0.5);
  at("state").textContent = "Ready.";
  document.body.dataset.ready = "";
}

async function isReady() {
  try {
    return (await fetch("/health")).ok;
  } catch {
    at("state").textContent = "The server cannot be reached.";
    return false;
  }
}

// ---- files

async function add(files) {
  if (model === null) return warn("The server has not said yet which model it has; try again.");
  const { sent, ignored } = sortOut(await files, model.suffixes);
  sayIgnored(ignored);
  const fresh = sent.filter(fits).filter(isNew);
  if (!fresh.length) return say();
  turn++;
  const drop = turn;
  work.running++;
  work.total += fresh.filter(({ path }) => !isZip(path)).length;
  say();
  const zips = groupsOf(fresh).map((group) => isZip(group[0].path));
  await classify(
    fresh,
    (line, group, place) => takeLine(line, zips[group], [drop, group, place]),
    (group, error) => {
      work.done += group.filter(({ path }) => !isZip(path)).length;
      group.forEach(({ path }) => given.delete(path));
      warn(`${group[0].path}${group.length > 1 ? ` and ${group.length - 1} more` : ""}: ${error}`);
    },
    (reason) => (at("progress").textContent = `Waiting: ${reason}`),
  );
  work.running--;
  show();
}

const given = new Set(); // paths of images and zips that were sent

function isNew({ path }) {
  if (given.has(path)) {
    warn(`${path}: is on this page already, and has one row. If it is another file, put it into a folder of another name.`);
    return false;
  }
  given.add(path);
  return true;
}

function fits({ path, file }) {
  const most = model.limits.upload_bytes;
  if (file.size < most) return true;
  warn(`${path}: has ${(file.size / 2 ** 20).toFixed(0)} MiB; the server takes ${(most / 2 ** 20).toFixed(0)} MiB.`);
  return false;
}

function sayIgnored(ignored) {
  const kinds = Object.entries(ignored).map(([suffix, count]) => `${suffix}: ${count}`);
  if (kinds.length) warn(`Files that are no images by their suffix are left out (${kinds.join(", ")}).`);
}

function takeLine(line, isOfZip, order) {
  if ("total" in line && isOfZip) work.total += line.total;
  if ("image" in line) cells.push(created(line.image, order));
  if ("unreadable" in line) addUnreadable(line.unreadable);
  if ("image" in line || "unreadable" in line) work.done++;
  if ("done" in line) {
    sayIgnored(line.done.ignored);
    line.done.warnings.forEach(warn);
  }
  say();
  showSoon();
}

function warn(text) {
  const lines = [...at("warnings").children].map((line) => line.textContent);
  if (!lines.includes(text)) at("warnings").append(element("li", { textContent: text }));
  at("notes").hidden = false;
}

function addUnreadable({ file, reason }) {
  const list = at("unreadable");
  list.hidden = at("notes").hidden = false;
  list.querySelector("ul").append(element("li", { textContent: `${file}: ${reason}` }));
  const count = list.querySelectorAll("li").length;
  list.querySelector("summary").textContent = `Could not be read, and without a row: ${count} ${count === 1 ? "image" : "images"}`;
}

// ---- cells

function created(image, order) {
  const seenImage = blobOf(image.seen);
  const cell = { ...image, order, answer: "", seenImage };
  cell.seenAddress = URL.createObjectURL(seenImage);
  cell.shownAddress = URL.createObjectURL(blobOf(image.shown));
  cell.cellOfClass = model.classes.find(({ name }) => name === image.predicted).cell;
  delete cell.seen;
  delete cell.shown;
  return cell;
}

function draw(cell) {
  const article = at("cell").content.firstElementChild.cloneNode(true);
  const find = (selector) => article.querySelector(selector);
  find("img").src = cell.shownAddress;
  find("img").alt = cell.file;
  find(".name").textContent = model.title(cell.predicted);
  find(".confidence").textContent = percent(cell.confidence);
  find(".not-known").hidden = cell.known !== false;
  find(".file").textContent = cell.file;
  const choices = model.classes.map((each) => element("option", { value: `class:${each.cell}`, textContent: each.title }));
  const open = element("option", { value: "", textContent: "not judged yet" });
  const out = element("option", { value: LEFT_OUT, textContent: "not a cell, leave it out" });
  find("select").append(open, ...choices, out);
  find(".open").addEventListener("click", () => openDetails(cell, model));
  find("input").addEventListener("change", (event) =>
    judge(cell, event.target.checked ? `class:${cell.cellOfClass}` : ""),
  );
  find("select").addEventListener("change", (event) => judge(cell, event.target.value));
  cell.article = article;
  showJudgment(cell);
  return article;
}

function judge(cell, answer) {
  cell.answer = answer;
  saved.corrections = false;
  showJudgment(cell);
  showCounts();
}

function showJudgment({ article, answer, cellOfClass }) {
  const select = article.querySelector("select");
  select.value = answer;
  article.querySelector("input").checked = answer === `class:${cellOfClass}`;
  article.toggleAttribute("data-judged", answer !== "");
  const mark = answer === LEFT_OUT ? "✕ left out" : `${answer === `class:${cellOfClass}` ? "✓" : "→"} `;
  const name = answer.startsWith("class:") ? select.selectedOptions[0].textContent : "";
  article.querySelector("output").textContent = answer === "" ? "" : mark + name;
}

// ---- orders and filters

function compareOrders(a, b) {
  const i = a.order.findIndex((value, place) => value !== b.order[place]);
  return i < 0 ? 0 : a.order[i] - b.order[i];
}

// The least known and the least certain take turns, as on the review page of predict.
function byDoubt(list) {
  const leastCertain = [...list].sort((a, b) => a.confidence - b.confidence);
  if (list.some((cell) => cell.ood_score === undefined)) return leastCertain;
  const leastKnown = [...list].sort((a, b) => b.ood_score - a.ood_score);
  return [...new Set(leastKnown.flatMap((cell, i) => [cell, leastCertain[i]]))];
}

function byClass(list) {
  const place = new Map(model.classes.map(({ name }, i) => [name, i]));
  return [...list].sort((a, b) => place.get(a.predicted) - place.get(b.predicted) || b.confidence - a.confidence);
}

const ORDERS = { doubt: byDoubt, given: (list) => list, class: byClass };
const FILTERS = {
  all: () => true,
  unknown: (cell) => cell.known === false,
  open: (cell) => cell.answer === "",
  judged: (cell) => cell.answer !== "",
};

// ---- what is shown

let soon = null;

function showSoon() {
  soon ??= setTimeout(show, 200);
}

function show() {
  clearTimeout(soon);
  soon = null;
  cells.sort(compareOrders);
  const ordered = ORDERS[at("order").value](cells);
  const chosen = ordered.filter(FILTERS[at("filter").value]);
  at("cells").replaceChildren(...chosen.slice(0, drawn).map((cell) => cell.article ?? draw(cell)));
  at("rest").hidden = chosen.length <= drawn;
  at("shown").textContent = `${Math.min(chosen.length, drawn)} of ${cells.length} cells`;
  at("results").hidden = at("tray").hidden = cells.length === 0;
  showCounts();
  say();
}

function showCounts() {
  const counted = cells.filter((cell) => cell.answer !== LEFT_OUT);
  const counts = new Map(model.classes.map((each) => [each.cell, 0]));
  for (const cell of counted) {
    const name = cell.answer === "" ? cell.cellOfClass : cell.answer.slice("class:".length);
    counts.set(name, counts.get(name) + 1);
  }
  at("counts").replaceChildren(...model.classes.map((each) => countRow(each.title, counts.get(each.cell), counted.length)));
  const unknown = cells.filter((cell) => cell.known === false && cell.answer === "").length;
  at("unknown").hidden = unknown === 0;
  at("unknown").textContent = `${unknown} of these are not of a kind that the model knows, and count as the class that looks likeliest.`;
  const done = cells.filter((cell) => cell.answer !== "").length;
  const out = cells.length - counted.length;
  at("judged").textContent = `${done} of ${cells.length} cells judged` + (out ? `, ${out} of them left out` : "");
  at("save-corrections").disabled = done === out;
}

function countRow(title, count, total) {
  const bar = element("span");
  bar.style.setProperty("--share", total ? count / total : 0);
  const share = total ? percent(count / total) : "–";
  return element("tr", {}, element("th", {}, title, bar), element("td", {}, `${count}`), element("td", {}, share));
}

function say() {
  at("progress").textContent = work.total ? `${work.done} of ${work.total} images` : work.running ? "Sending …" : "";
  at("bar").hidden = work.running === 0;
  at("bar").value = work.total ? work.done / work.total : 0;
}

function removeAll() {
  if (!saved.corrections && !confirm("Forget all cells and judgments on this page?")) return;
  cells.forEach(({ seenAddress, shownAddress }) => [seenAddress, shownAddress].forEach(URL.revokeObjectURL));
  cells = [];
  given.clear();
  Object.assign(work, { total: 0, done: 0 });
  drawn = AT_A_TIME;
  saved.corrections = true;
  at("warnings").replaceChildren();
  at("unreadable").querySelector("ul").replaceChildren();
  at("unreadable").hidden = at("notes").hidden = true;
  show();
}

// ---- events

const drop = at("drop");
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add(droppedFiles(event.dataTransfer));
});
for (const input of [at("files"), at("folder")]) {
  input.addEventListener("change", () => {
    const files = chosenFiles(input);
    input.value = ""; // The same file may be chosen again.
    add(files);
  });
}
at("order").addEventListener("change", show);
at("filter").addEventListener("change", show);
at("more").addEventListener("click", () => {
  drawn += AT_A_TIME;
  show();
});
at("remove").addEventListener("click", removeAll);
at("save-answers").addEventListener("click", () =>
  saveCsv("answers.csv", [model.csv_columns, ...cells.map((cell) => cell.csv)]),
);
at("save-corrections").addEventListener("click", () => {
  const judgments = cells.map(({ path, answer, cellOfClass }) => ({ file: path, answer, predicted: cellOfClass }));
  saveCsv("corrections.csv", correctionsTable(judgments));
  saved.corrections = true;
});
addEventListener("beforeunload", (event) => {
  if (!saved.corrections) event.preventDefault();
});
start();
