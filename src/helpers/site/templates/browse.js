// What the browsers of completions and of runs share. Texts of models and records enter the document through
// textContent only: whatever they hold, they are shown, never read as HTML.
const at = (id) => document.getElementById(id);
const shards = new Map(), waiting = new Map();

// Data files are scripts that call this function, because a page from a disk may not read files any other way.
window.claimbookShard = (number, data) => shards.set(number, data);

function load(number, file) {
  if (shards.has(number)) return Promise.resolve();
  if (!waiting.has(number)) waiting.set(number, new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = file;
    script.onload = resolve;
    script.onerror = () => reject(new Error("cannot read " + file));
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

// Returns a function that shows a list from its first page on: `draw` gets the items of one page and their total.
function pager(size, draw) {
  let items = [], page = 0;
  const show = () => {
    const pages = Math.max(1, Math.ceil(items.length / size));
    at("where").textContent = `page ${page + 1} of ${pages}`;
    at("back").disabled = page === 0;
    at("next").disabled = page >= pages - 1;
    draw(items.slice(page * size, (page + 1) * size), items.length);
  };
  for (const [button, by] of [["back", -1], ["next", 1]]) at(button).addEventListener("click", () => {
    page += by;
    show();
    at("filters").scrollIntoView();
  });
  return (all) => {
    items = all;
    page = 0;
    show();
  };
}
