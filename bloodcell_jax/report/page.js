"use strict";
// What a script adds to every page: tables sort, and images enlarge. Without scripts a page shows all the same.
{
  const collator = new Intl.Collator("en", { numeric: true });

  // A value by which rows are sorted; a cell without a number, such as a dash, comes last in either direction.
  function key(row, column, isText) {
    const text = row.cells[column].textContent.trim();
    return isText ? text : parseFloat(text.replaceAll(",", ""));
  }

  function compare(a, b) {
    if (typeof a === "string") return collator.compare(a, b);
    return a - b;
  }

  function sortRows(table, column) {
    const heads = [...table.tHead.rows[0].cells];
    const head = heads[column];
    const isText = head.classList.contains("text");
    const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: key(row, column, isText) }));
    const known = rows.filter((entry) => !Number.isNaN(entry.key));
    known.sort((a, b) => sign * compare(a.key, b.key));
    const unknown = rows.filter((entry) => Number.isNaN(entry.key));
    table.tBodies[0].append(...[...known, ...unknown].map((entry) => entry.row));
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    table.classList.add("sorts");
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sortRows(table, column));
      head.append(button);
    });
  }

  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  dialog.addEventListener("click", () => dialog.close());

  function enlarge(picture) {
    const image = picture.querySelector("img") ?? picture;
    const words = picture.closest("figure")?.querySelector("figcaption");
    const caption = document.createElement("div");
    caption.append(...(words ? words.cloneNode(true).childNodes : [image.alt]));
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    dialog.replaceChildren(picture.cloneNode(true), caption, close);
    dialog.showModal();
    dialog.scrollTo(0, 0); // The focus is on the button at its end.
  }

  // A picture is an image, or an element of class "layers" that holds an image and what lies over it.
  for (const picture of document.querySelectorAll(".layers, img:not(.layers img, label img)")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "enlarge";
    button.title = "Enlarge";
    picture.replaceWith(button);
    button.append(picture);
    button.addEventListener("click", () => enlarge(picture));
  }
  document.body.append(dialog);
}
