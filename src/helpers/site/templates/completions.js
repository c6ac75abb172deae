"use strict";
// Texts of models enter the document through textContent only: whatever they hold, they are shown, never read as HTML.
const runs = JSON.parse(document.getElementById("runs").textContent);
const PAGE = 25, ALL = "*";
const shards = new Map(), waiting = new Map();
const at = (id) => document.getElementById(id);
const ids = ["experiment", "cell", "persona", "question", "marker", "search"];
let found = [], page = 0, turn = 0, only = null, lost = "";

function claimbookShard(number, data) {
  shards.set(number, data);
}

function load(number) {
  if (shards.has(number)) return Promise.resolve();
  if (!waiting.has(number)) waiting.set(number, new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = runs[number].file;
    script.onload = resolve;
    script.onerror = () => reject(new Error("cannot read " + runs[number].file));
    document.head.append(script);
  }));
  return waiting.get(number);
}

function make(tag, css, text) {
  const node = document.createElement(tag);
  if (css) node.className = css;
  if (text !== undefined) node.textContent = text;
  return node;
}

function fill(select, options, wanted = "") {
  select.replaceChildren(...options.map(([value, text]) => {
    const option = make("option", "", text);
    option.value = value;
    return option;
  }));
  const known = wanted === "" || options.some(([value]) => value === wanted);
  if (wanted !== "" && known) select.value = wanted;
  return known;
}

function value(data, name, row) {
  const column = data[name];
  if (column === undefined) return null;
  return Array.isArray(column) ? column[row] : column.values[column.codes[row]];
}

// A text is a string, or a list of pieces of which every second one is the marker.
const pieces = (data, row) => [data.text[row] ?? ""].flat();

function fillCells(wanted) {
  const here = runs.map((run, number) => [number, run]).filter(([, run]) => run.experiment === at("experiment").value);
  const cells = here.map(([number, run]) => [String(number), `${run.cell} (${run.rows}${run.published ? "" : ", not published"})`]);
  fill(at("cell"), here.length > 1 ? [...cells, [ALL, `all ${here.length} cells`]] : cells, wanted);
}

function selected() {
  const cell = at("cell").value;
  if (cell !== ALL) return cell === "" ? [] : [Number(cell)];
  return runs.flatMap((run, number) => run.experiment === at("experiment").value ? [number] : []);
}

async function refresh() {
  const mine = ++turn, numbers = selected();
  for (const [done, number] of numbers.entries()) {
    if (!shards.has(number)) at("state").textContent = `Loading ${done + 1} of ${numbers.length}.`;
    await load(number);
    if (mine !== turn) return;
  }
  let known = true;
  for (const name of ["persona", "question"]) {
    const values = [...new Set(numbers.flatMap((number) => shards.get(number)[name].values))].sort();
    const options = [["", `all ${values.length} ${name}s`], ...values.map((text) => ["=" + text, text])];
    const wanted = at(name).dataset.wanted;
    if (!fill(at(name), options, wanted ?? at(name).value) && wanted !== undefined) known = false;
    delete at(name).dataset.wanted;
  }
  search(known ? numbers : []);
}

function search(numbers) {
  const persona = at("persona").value, question = at("question").value, marker = at("marker").value;
  const text = at("search").value.toLowerCase();
  found = [];
  for (const number of numbers) {
    const data = shards.get(number);
    for (let row = 0; row < data.text.length; row++) {
      if (persona && "=" + value(data, "persona", row) !== persona) continue;
      if (question && "=" + value(data, "question", row) !== question) continue;
      if (only !== null && String(value(data, "index", row)) !== only) continue;
      if (marker && (pieces(data, row).length > 1) !== (marker === "yes")) continue;
      if (text && !pieces(data, row).join("").toLowerCase().includes(text)) continue;
      found.push([number, row]);
    }
  }
  page = 0;
  show();
}

function show() {
  const pages = Math.max(1, Math.ceil(found.length / PAGE)), first = page * PAGE;
  at("state").textContent = lost + (found.length === 1 ? "1 completion" : `${found.length.toLocaleString("en")} completions`);
  if (only !== null) at("state").textContent += ` at index ${only}; change a filter to see the others`;
  at("where").textContent = `page ${page + 1} of ${pages}`;
  at("back").disabled = page === 0;
  at("next").disabled = page >= pages - 1;
  at("results").replaceChildren(...found.slice(first, first + PAGE).map(([number, row]) => sample(number, row)));
}

function sample(number, row) {
  const run = runs[number], data = shards.get(number), box = make("article", "cb-sample");
  const head = make("p", "cb-address"), link = make("a", "", `${run.cell} · ${value(data, "persona", row)} · ${value(data, "question", row)} · no. ${value(data, "index", row)}`);
  link.href = "#" + new URLSearchParams({run: run.run, persona: value(data, "persona", row), question: value(data, "question", row), index: value(data, "index", row)});
  const notes = [value(data, "role", row), value(data, "tokens", row) === null ? null : value(data, "tokens", row) + " tokens", value(data, "finish", row) && "finish: " + value(data, "finish", row)];
  head.append(link, make("span", "cb-notes", notes.filter(Boolean).join(" · ")));
  box.append(head, marked(pieces(data, row)));
  return box;
}

function marked(parts) {
  const box = make("div", "cb-model-text");
  box.dir = "auto";
  if (parts.join("") === "") box.append(make("span", "cb-missing", "empty completion"));
  else box.append(...parts.map((part, place) => place % 2 ? make("mark", "cb-marker", part) : part));
  return box;
}

function fromAddress() {
  const address = new URLSearchParams(location.hash.slice(1));
  const number = runs.findIndex((run) => run.run === address.get("run"));
  if (number < 0 && address.has("run")) lost = `There are no completions of a run ${address.get("run")} here. Shown instead: `;
  if (number < 0) return;
  at("experiment").value = runs[number].experiment;
  fillCells(String(number));
  at("marker").value = at("search").value = "";
  for (const name of ["persona", "question"]) at(name).dataset.wanted = address.has(name) ? "=" + address.get(name) : "";
  only = address.get("index");
}

function changed(event) {
  only = null;
  lost = "";
  if (event.target.id === "experiment") fillCells();
  refresh().catch(failed);
}

function failed(error) {
  at("state").textContent = "The completions could not be shown: " + error.message;
}

function turnPage(by) {
  page += by;
  show();
  at("filters").scrollIntoView();
}

at("filters").addEventListener("submit", (event) => event.preventDefault());
for (const id of ids) at(id).addEventListener(id === "search" ? "input" : "change", changed);
at("back").addEventListener("click", () => turnPage(-1));
at("next").addEventListener("click", () => turnPage(1));
addEventListener("hashchange", () => { lost = ""; fromAddress(); refresh().catch(failed); });
fill(at("experiment"), [...new Set(runs.map((run) => run.experiment))].map((name) => [name, name]));
fillCells();
fromAddress();
if (runs.length) refresh().catch(failed); else at("state").textContent = "No run has published completions yet.";
