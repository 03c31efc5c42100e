"use strict";
// The files that a person drops or chooses: { path, file, inFolder }. A path begins with what was dropped.

// The names have to be asked for before anything is awaited: then the browser forgets what was dropped.
function droppedFiles(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry() ?? item.getAsFile());
  return filesOfEntries(entries.filter(Boolean));
}

async function filesOfEntries(entries) {
  const found = [];
  for (const entry of entries) {
    if (entry instanceof File) found.push({ path: entry.name, file: entry, inFolder: false });
    else found.push(...(await filesBelow(entry, false)));
  }
  return found;
}

async function filesBelow(entry, inFolder) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ path: entry.fullPath.replace(/^\//, ""), file, inFolder }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A browser lists a folder in parts, 100 entries each.
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) break;
    for (const inside of part) found.push(...(await filesBelow(inside, true)));
  }
  return byPath(found);
}

function chosenFiles(input) {
  const files = [...input.files].map((file) => ({
    path: file.webkitRelativePath || file.name,
    file,
    inFolder: Boolean(file.webkitRelativePath),
  }));
  return byPath(files);
}

// A browser lists a folder in the order of its disk.
function byPath(files) {
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

function suffixOf(path) {
  const name = path.split("/").pop();
  return name.includes(".") ? "." + name.split(".").pop().toLowerCase() : "none";
}

function isHidden(path) {
  return path.split("/").some((part) => part.startsWith(".") || part === "__MACOSX");
}

function isZip(path) {
  return suffixOf(path) === ".zip";
}

// Of a folder, images and zips alone are sent. A file that was dropped by itself is sent in any case, as predict does.
function sortOut(files, suffixes) {
  const sent = [];
  const ignored = {};
  for (const each of files) {
    const suffix = suffixOf(each.path);
    if (!each.inFolder || (!isHidden(each.path) && (suffixes.includes(suffix) || isZip(each.path)))) sent.push(each);
    else if (!isHidden(each.path)) ignored[suffix] = (ignored[suffix] ?? 0) + 1;
  }
  return { sent, ignored };
}
