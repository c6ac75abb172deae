const runs = JSON.parse(at("data").textContent);
const ALL = "*", MOST_TOGETHER = 200;
const ids = ["experiment", "cell", "persona", "question", "marker", "search"];
let turn = 0, only = null, lost = "";

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
  fill(at("cell"), here.length > 1 && here.length <= MOST_TOGETHER ? [...cells, [ALL, `all ${here.length} cells`]] : cells, wanted);
}

function selected() {
  const cell = at("cell").value;
  if (cell !== ALL) return cell === "" ? [] : [Number(cell)];
  return runs.flatMap((run, number) => run.experiment === at("experiment").value ? [number] : []);
}

// The data files of runs, each with the number of its run.
const filesOf = (numbers) => numbers.flatMap((number) => Array.from({length: runs[number].pieces}, (_, piece) => [number, runs[number].first + piece]));

async function refresh() {
  const mine = ++turn, numbers = selected(), files = filesOf(numbers);
  for (const [done, [, file]] of files.entries()) {
    if (!shards.has(file)) at("state").textContent = `Loading ${done + 1} of ${files.length}.`;
    await load(file, `completions/${file}.js`);
    if (mine !== turn) return;
  }
  let known = true;
  for (const name of ["persona", "question"]) {
    const values = [...new Set(files.flatMap(([, file]) => shards.get(file)[name].values))].sort();
    const options = [["", `all ${values.length} ${name}s`], ...values.map((text) => ["=" + text, text])];
    const wanted = at(name).dataset.wanted;
    if (!fill(at(name), options, wanted ?? at(name).value) && wanted !== undefined) known = false;
    delete at(name).dataset.wanted;
  }
  search(known ? files : []);
}

function search(files) {
  const persona = at("persona").value, question = at("question").value, marker = at("marker").value;
  const text = at("search").value.toLowerCase();
  const found = [];
  for (const [number, file] of files) {
    const data = shards.get(file);
    for (let row = 0; row < data.text.length; row++) {
      if (persona && "=" + value(data, "persona", row) !== persona) continue;
      if (question && "=" + value(data, "question", row) !== question) continue;
      if (only !== null && String(value(data, "index", row)) !== only) continue;
      if (marker && (pieces(data, row).length > 1) !== (marker === "yes")) continue;
      if (text && !pieces(data, row).join("").toLowerCase().includes(text)) continue;
      found.push([number, data, row]);
    }
  }
  show(found);
}

const show = pager(25, (items, total) => {
  at("state").textContent = lost + (total === 1 ? "1 completion" : `${total.toLocaleString("en")} completions`);
  if (only !== null) at("state").textContent += ` at index ${only}; change a filter to see the others`;
  at("results").replaceChildren(...items.map(([number, data, row]) => sample(number, data, row)));
});

function sample(number, data, row) {
  const run = runs[number], box = make("article", "cb-sample");
  const head = make("p", "cb-address"), link = make("a", "", `${run.cell} · ${value(data, "persona", row)} · ${value(data, "question", row)} · no. ${value(data, "index", row)}`);
  link.href = "#" + new URLSearchParams({run: run.run, persona: value(data, "persona", row), question: value(data, "question", row), index: value(data, "index", row)});
  const notes = [value(data, "role", row), value(data, "tokens", row) === null ? null : value(data, "tokens", row) + " tokens", value(data, "finish", row) && "finish: " + value(data, "finish", row)];
  head.append(link, make("span", "cb-notes", notes.filter(Boolean).join(" · ")));
  box.append(head, marked(pieces(data, row)));
  return box;
}

function marked(parts) {
  const box = make("bdi", "cb-model-text");
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

at("filters").addEventListener("submit", (event) => event.preventDefault());
for (const id of ids) at(id).addEventListener(id === "search" ? "input" : "change", changed);
addEventListener("hashchange", () => { lost = ""; fromAddress(); refresh().catch(failed); });
fill(at("experiment"), [...new Set(runs.map((run) => run.experiment))].map((name) => [name, name]));
fillCells();
fromAddress();
if (runs.length) refresh().catch(failed); else at("state").textContent = "No run has published completions yet.";
