"use strict";
// A click on a cell: all of its answers, what the model looks at, and the training cells that are most like it.

const details = document.getElementById("details");
let opened = null;

function element(name, attributes = {}, ...content) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...content);
  return made;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function openDetails(cell, model) {
  opened = cell;
  details.querySelector("h2").textContent = cell.file;
  const unknown = details.querySelector(".not-known");
  unknown.hidden = cell.known !== false;
  unknown.textContent = `Not a cell I know: its score is ${cell.ood_score?.toFixed(2)}, and known cells have 1 at most.`;
  showWhole(cell);
  showAnswers(cell, model);
  details.querySelector(".maps").hidden = true;
  details.querySelector(".neighbors").replaceChildren();
  if (!details.open) details.showModal();
  details.scrollTo(0, 0);
  cell.explanation ??= askOfImage("/explain", cell.seenImage);
  cell.neighbors ??= askOfImage("/neighbors", cell.seenImage);
  showWhenThere(cell, "explanation", "explaining", "The model looks at 50 versions of the cell.", showMaps);
  showWhenThere(cell, "neighbors", "searching", "Being looked for; the first time, all training cells are read.", (cell, found) =>
    showNeighbors(found, model),
  );
}

async function showWhenThere(cell, what, place, waiting, show) {
  const line = document.getElementById(place);
  line.textContent = waiting;
  try {
    const found = await cell[what];
    if (opened !== cell) return;
    line.textContent = "";
    show(cell, found);
  } catch (error) {
    cell[what] = undefined; // It is asked again with the next click.
    if (opened === cell) line.textContent = error.message;
  }
}

function showWhole(cell) {
  const whole = document.getElementById("whole");
  const mark = whole.querySelector("i");
  whole.querySelector("img").src = cell.shownAddress;
  const across = cell.side / cell.width;
  const down = cell.side / cell.height;
  mark.hidden = across === 1 && down === 1;
  mark.style.left = `${50 * (1 - across)}%`;
  mark.style.top = `${50 * (1 - down)}%`;
  mark.style.width = `${100 * across}%`;
  mark.style.height = `${100 * down}%`;
  const looked = mark.hidden ? "" : `; the model looks at the ${cell.side} × ${cell.side} in the middle`;
  const notes = cell.notes.map((note) => `. ${note}`).join("");
  whole.nextElementSibling.textContent = `${cell.width} × ${cell.height} pixels${looked}${notes}`;
}

function showAnswers(cell, model) {
  const sorted = Object.entries(cell.probabilities).sort((a, b) => b[1] - a[1]);
  const rows = sorted.map(([name, probability]) => {
    const bar = element("span");
    bar.style.setProperty("--share", probability);
    return element("li", {}, model.title(name), element("b", { textContent: percent(probability) }), bar);
  });
  details.querySelector(".answers").replaceChildren(...rows);
}

function showMaps(cell, found) {
  const maps = details.querySelector(".maps");
  const layers = [found.occlusion_layer, found.grad_cam_layer];
  maps.querySelectorAll(".heat").forEach((heat, i) => {
    const [seen, layer] = heat.querySelectorAll("img");
    seen.src = cell.seenAddress;
    layer.hidden = layers[i] === null;
    if (layers[i] !== null) layer.src = layers[i];
  });
  const agreement = found.rank_agreement === null ? "nothing" : found.rank_agreement.toFixed(2);
  document.getElementById("agreement").textContent = found.grad_cam_agrees
    ? `Agrees with occlusion (rank agreement ${agreement}).`
    : `Does not agree with occlusion (rank agreement ${agreement}): do not read it.`;
  maps.hidden = false;
}

function showNeighbors(found, model) {
  document.getElementById("searching").textContent = found.without === null ? "" : `None: ${found.without}`;
  const figures = found.neighbors.map(({ id, label, distance, image }) => {
    const caption = element("figcaption", {}, element("b", { textContent: model.title(label) }));
    caption.append(`distance ${distance.toFixed(2)}, ${id}`);
    return element("figure", {}, element("img", { src: image, alt: `Training cell: ${label}` }), caption);
  });
  details.querySelector(".neighbors").replaceChildren(...figures);
}

details.querySelector(".close").addEventListener("click", () => details.close());
details.addEventListener("close", () => (opened = null));
details.addEventListener("click", (event) => {
  if (event.target === details) details.close(); // outside of it
});
