const byId = (id) => document.getElementById(id);
const packed = Uint8Array.from(atob(byId("data").textContent), (character) => character.charCodeAt(0));
const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
const data = JSON.parse(await new Response(unpacked).text());
const PAGE = 50;

/* Tables come by column, each text once: convert them to rows. */
function unpack({ n, columns }) {
  const readers = Object.entries(columns).map(([name, column]) =>
    [name, Array.isArray(column) ? (i) => column[i] : (i) => column.levels[column.codes[i]] ?? null]);
  return Array.from({ length: n }, (_, i) => Object.fromEntries(readers.map(([name, read]) => [name, read(i)])));
}
const rows = Object.fromEntries(Object.entries(data.rows).map(([name, table]) => [name, unpack(table)]));

/* The page shows one phenotype at a time where there are several, and one plate in the maps. */
const phenotype = byId("phenotype");
const plate = byId("plate");
const ofPhenotype = (row) => !phenotype || row.phenotype === undefined || row.phenotype === phenotype.value;

function format(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "yes" : "";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size < 0.001 ? value.toExponential(1) : size < 1 ? value.toFixed(3) : value.toFixed(size < 100 ? 2 : 0);
}

/* A hit leads to its pictures, a well to its plate. */
function linkOf(table, column, row) {
  const link = document.createElement("a");
  if (table === "hits" && column === "perturbation" && byId(`hit-${row.rank}`)) link.href = `#hit-${row.rank}`;
  else if (column === "plate" || column === "well") {
    link.href = "#plates";
    link.addEventListener("click", () => showPlate(row.plate, row.well));
  } else return null;
  return link;
}

/* A sortable, searchable table. Cells are written as text, never as HTML. */
function makeTable(name, keep) {
  const table = byId(`${name}-table`);
  if (!table) return;
  const all = rows[name];
  const isText = (column) => all.some((row) => typeof row[column] === "string");
  const columns = data.tables[name].map((column) => ({ ...column, text: isText(column.name) }));
  const search = byId(`${name}-search`);
  const state = { column: null, up: true, limit: PAGE };
  const head = table.createTHead().insertRow();
  const body = table.createTBody();
  for (const column of columns) {
    const th = document.createElement("th");
    th.scope = "col";
    th.title = column.meaning;
    th.classList.toggle("text", column.text);
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = column.heading;
    button.addEventListener("click", () => {
      state.up = state.column === column.name ? !state.up : true;
      state.column = column.name;
      for (const other of head.cells) other.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", state.up ? "ascending" : "descending");
      draw();
    });
    th.append(button);
    head.append(th);
  }
  function compare(a, b) {
    const [x, y] = [a[state.column], b[state.column]];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    return state.up ? order : -order;
  }
  function draw() {
    const sought = search.value.trim().toLowerCase();
    const found = (row) => columns.some(({ name, text }) => text && format(row[name]).toLowerCase().includes(sought));
    let shown = all.filter((row) => ofPhenotype(row) && keep(row));
    if (sought) shown = shown.filter(found);
    if (state.column) shown.sort(compare);
    body.replaceChildren(...shown.slice(0, state.limit).map((row) => {
      const tr = document.createElement("tr");
      tr.classList.toggle("hit", row.hit === true);
      for (const column of columns) {
        const td = tr.insertCell();
        td.classList.toggle("text", column.text);
        const value = format(row[column.name]);
        const target = linkOf(name, column.name, row);
        if (target) {
          target.textContent = value;
          td.append(target);
        } else td.textContent = value;
      }
      return tr;
    }));
    if (shown.length > state.limit) {
      const td = Object.assign(body.insertRow(), { className: "more" }).insertCell();
      td.colSpan = columns.length;
      const more = Object.assign(document.createElement("button"), { type: "button", textContent: "Show more" });
      more.addEventListener("click", () => { state.limit += 10 * PAGE; draw(); });
      td.append(more);
    }
    byId(`${name}-shown`).textContent = `${Math.min(shown.length, state.limit)} of ${all.length}`;
  }
  search.addEventListener("input", draw);
  draw();
  return draw;
}

/* Charts: each view is made once, when it first has rows; they change with the phenotype, the maps' with the plate too. */
const views = {};
const wellsOf = Map.groupBy ? Map.groupBy(rows.wells, (row) => row.plate) : rows.wells.reduce(
  (map, row) => map.set(row.plate, [...(map.get(row.plate) ?? []), row]), new Map());
const isMap = (name) => name.startsWith("map-");
const rowsOf = (name) => (isMap(name) ? wellsOf.get(plate.value) ?? [] : rows[data.charts[name].rows])
  .filter(ofPhenotype).map((row) => ({ ...row }));

async function drawChart(name) {
  const shown = rowsOf(name);
  const place = byId(name);
  (place.closest("figure:not(.stack)") ?? place).hidden = shown.length === 0;
  if (shown.length === 0) return;
  if (views[name]) {
    await views[name].data("rows", shown).runAsync();
    return;
  }
  const { spec } = data.charts[name];
  const { view } = await window.vegaEmbed(place, { ...spec, datasets: { ...spec.datasets, rows: shown } }, {
    renderer: shown.length > 3000 ? "canvas" : "svg",
    actions: { export: true, source: false, compiled: false, editor: false },
    downloadFileName: name,
  });
  views[name] = view;
}
const drawCharts = (names) => Promise.all(names.map(drawChart));

const charts = Object.keys(data.charts);
for (const place of document.querySelectorAll(".chart")) {
  if (!data.charts[place.id]) (place.closest("figure:not(.stack)") ?? place).hidden = true;
}
const maps = charts.filter(isMap);
function showPlate(name, well) {
  plate.value = name;
  const states = rows.plates.filter((row) => row.plate === name && ofPhenotype(row) && row.state !== "used");
  byId("plate-state").textContent = states.length ? `left out of the calls: ${states[0].reasons ?? ""}` : "";
  for (const map of maps) views[map]?.signal("chosen", well ?? "");
  return drawCharts(maps);
}

const onlyHits = byId("hits-only");
const drawTables = [
  makeTable("hits", (row) => !onlyHits.checked || row.hit === true),
  makeTable("plates", () => true),
  makeTable("suspects", () => true),
].filter(Boolean);
onlyHits.addEventListener("change", drawTables[0]);
plate.addEventListener("change", () => showPlate(plate.value));
for (const [id, step] of [["previous", -1], ["next", 1]]) {
  byId(id).addEventListener("click", () => {
    const n = plate.options.length;
    showPlate(plate.options[(plate.selectedIndex + step + n) % n].value);
  });
}
phenotype?.addEventListener("change", () => { for (const draw of drawTables) draw(); drawCharts(charts); });
for (const link of document.querySelectorAll("a[data-plate]")) {
  link.addEventListener("click", () => showPlate(link.dataset.plate, link.dataset.well));
}
for (const box of document.querySelectorAll("input[data-layer]")) {
  const apply = () => document.body.classList.toggle(`no-${box.dataset.layer}`, !box.checked);
  box.addEventListener("change", apply);
  apply();
}
await showPlate(plate.value);
await drawCharts(charts.filter((name) => !isMap(name)));
document.documentElement.dataset.ready = "yes";
