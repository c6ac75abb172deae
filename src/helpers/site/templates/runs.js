const runs = JSON.parse(at("data").textContent);
const places = new Map(runs.run.map((id, place) => [id, place]));
const columns = [["run", "Run"], ["experiment", "Experiment"], ["cell", "Cell"], ["started", "Started"], ["took", "Took"]];
const texts = runs.run.map((id, place) => `${id} ${runs.cell[place]}`.toLowerCase());

const show = pager(50, (items, total) => {
  at("state").textContent = runs.run.length === 0 ? "No page rests on a run yet." : total === 1 ? "1 run" : `${total.toLocaleString("en")} runs`;
  const table = make("table", "cb-table cb-runs"), head = make("thead"), titles = make("tr"), body = make("tbody");
  titles.append(...columns.map(([, title]) => Object.assign(make("th", "", title), {scope: "col"})));
  head.append(titles);
  body.append(...items.map(row));
  table.append(make("caption", "", "Follow a run's link to see how it was made."), head, body);
  at("results").replaceChildren(table);
});

function row(place) {
  const line = make("tr"), first = Object.assign(make("th"), {scope: "row"}), link = make("a", "", runs.run[place]);
  link.href = "#" + encodeURIComponent(runs.run[place]);
  first.append(link);
  line.append(first, ...columns.slice(1).map(([name]) => make("td", "cb-" + name, runs[name][place])));
  return line;
}

function search() {
  const experiment = at("experiment").value, words = at("search").value.toLowerCase().split(/[\s,]+/);
  show([...runs.run.keys()].filter((place) =>
    (experiment === "" || "=" + runs.experiment[place] === experiment) && words.every((word) => texts[place].includes(word))));
}

// The place of the run that the address names, if it names one.
function addressed() {
  try {
    return places.get(decodeURIComponent(location.hash.slice(1)));
  } catch {
    return undefined;
  }
}

async function follow() {
  const place = addressed(), lost = place === undefined && location.hash.length > 1 && !at(location.hash.slice(1));
  at("list").hidden = place !== undefined;
  at("one").hidden = place === undefined && !lost;
  if (lost) at("one").replaceChildren(make("p", "cb-banner", `There is no run ${location.hash.slice(1)} here.`));
  if (place === undefined) return;
  const number = Math.floor(place / runs.each), back = make("p");
  back.append(Object.assign(make("a", "", "All runs"), {href: "#"}));
  at("one").replaceChildren(back, make("h2", "", runs.run[place]), make("p", "", "Loading."));
  await load(number, `runs/${number}.js`);
  if (addressed() === place) at("one").replaceChildren(back, make("h2", "", runs.run[place]), ...shards.get(number)[place % runs.each].map(section));
  at("one").scrollIntoView();
}

function section([title, rows]) {
  const box = make("div", "cb-card"), table = make("table", "cb-table"), body = make("tbody");
  if (rows === null || rows.length === 0) {
    box.append(make("strong", "", title + ": "), rows === null ? missing() : "none");
    return box;
  }
  for (const [name, value] of rows) {
    const line = make("tr"), cell = make("td", "", value ?? "");
    if (value === null) cell.append(missing());
    line.append(Object.assign(make("th", "", name), {scope: "row"}), cell);
    body.append(line);
  }
  table.append(make("caption", "", title), body);
  box.append(table);
  return box;
}

const missing = () => make("span", "cb-missing", "missing");
const failed = (error) => at("one").replaceChildren(make("p", "cb-banner", "The run could not be shown: " + error.message));

at("filters").addEventListener("submit", (event) => event.preventDefault());
at("experiment").addEventListener("change", search);
at("search").addEventListener("input", search);
addEventListener("hashchange", () => follow().catch(failed));
const names = [...new Set(runs.experiment)];
fill(at("experiment"), [["", `all ${names.length} experiments`], ...names.map((name) => ["=" + name, name])]);
search();
follow().catch(failed);
