"use strict";
// What the page asks the server.

const MOST_IMAGES = 64; // of a request: a batch of the model
const MOST_BYTES = 16 * 2 ** 20;
const LANES = 2; // One request is sent while another one is answered.

function pause(seconds) {
  return new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}

// Ask until the server is not busy and not getting ready.
async function ask(address, options, sayBusy = () => {}) {
  for (;;) {
    const response = await fetch(address, options);
    if (response.status !== 429 && response.status !== 503) return response;
    const { error } = await response.json();
    sayBusy(error);
    await pause(Number(response.headers.get("Retry-After") ?? 1));
  }
}

async function errorOf(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `the server answers ${response.status}`;
  }
}

// Cut files into requests: zips alone, images together.
function groupsOf(files) {
  const groups = [];
  let images = null;
  let bytes = 0;
  for (const each of files) {
    if (isZip(each.path)) {
      groups.push([each]);
      continue;
    }
    if (images === null || images.length >= MOST_IMAGES || bytes + each.file.size > MOST_BYTES) {
      images = [];
      bytes = 0;
      groups.push(images);
    }
    images.push(each);
    bytes += each.file.size;
  }
  return groups;
}

async function* linesOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

// Classify files; `take(line, group, place)` gets each line of the server, `fail(group, error)` what went wrong.
async function classify(files, take, fail, sayBusy) {
  const groups = [...groupsOf(files).entries()];
  async function lane() {
    for (let next = groups.shift(); next; next = groups.shift()) {
      const [number, group] = next;
      try {
        await classifyGroup(group, (line, place) => take(line, number, place), sayBusy);
      } catch (error) {
        fail(group, error instanceof TypeError ? "the server cannot be reached" : error.message);
      }
    }
  }
  await Promise.all(Array.from({ length: LANES }, lane));
}

async function classifyGroup(group, take, sayBusy) {
  const body = new FormData();
  for (const { path, file } of group) body.append("image", file, path);
  const options = { method: "POST", body, headers: { Accept: "application/x-ndjson" } };
  const response = await ask("/predict?details=true", options, sayBusy);
  if (!response.ok) throw new Error(await errorOf(response));
  let place = 0;
  let isWhole = false;
  for await (const line of linesOf(response)) {
    if (line.error) throw new Error(line.error);
    isWhole ||= "done" in line;
    take(line, place++);
  }
  if (!isWhole) throw new Error("the server has ended in the middle of its answer");
}

// Ask something of one image, which is what the model saw.
async function askOfImage(address, image) {
  const response = await ask(`${address}?cropped=true`, { method: "POST", body: image });
  if (!response.ok) throw new Error(await errorOf(response));
  return response.json();
}

function blobOf(dataAddress) {
  const [, type, content] = dataAddress.match(/^data:([^;]+);base64,(.*)$/);
  return new Blob([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], { type });
}
