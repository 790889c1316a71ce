/* Charts: each view is made once, when it first has rows; they change with the phenotype, the maps' with the plate too. */
const views = {};
const isMap = (name) => name.startsWith("map-");
const rowsOf = (name) => (isMap(name) ? wellsOf.get(plate.value) ?? [] : rows[data.charts[name].rows])
  .filter(ofPhenotype).map((row) => ({ ...row }));

/* On a narrow page a chart becomes narrower, not smaller, and its legend goes below it. */
function fitted(spec, place) {
  if (!narrow.matches || isMap(place.id)) return spec;
  const legend = { ...spec.config.legend, orient: "bottom" };
  const width = Math.min(spec.width ?? Infinity, place.parentElement.clientWidth - 70);
  return { ...spec, ...(spec.facet ? { columns: 1 } : { width }), config: { ...spec.config, legend } };
}

async function drawChart(name) {
  const shown = rowsOf(name);
  const place = byId(name);
  (place.closest("figure:not(.stack)") ?? place).hidden = shown.length === 0;
  if (shown.length === 0) return;
  if (views[name]) {
    await views[name].data("rows", shown).runAsync();
    return;
  }
  const spec = fitted(data.charts[name].spec, place);
  const { view } = await window.vegaEmbed(place, { ...spec, datasets: { ...spec.datasets, rows: shown } }, {
    renderer: shown.length > 3000 ? "canvas" : "svg",
    actions: { export: true, source: false, compiled: false, editor: false },
    downloadFileName: name,
  });
  views[name] = view;
  view.addEventListener("click", (_event, item) => {
    const name = item?.datum?.perturbation;
    if (name && !isMap(place.id) && hitsOf.has(name)) location.hash = addressOf(name);
  });
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
  for (const button of byId("overview").children) button.setAttribute("aria-pressed", button.value === name);
  return drawCharts(maps);
}

/* Small maps of z: the colours of the large one. */
const ramp = data.map.colors.map((color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16)));
function colorOf(z) {
  if (z === null) return "#ddd";
  const at = (Math.min(Math.max(z / data.map.span, -1), 1) + 1) / 2 * (ramp.length - 1);
  const low = Math.min(Math.floor(at), ramp.length - 2);
  return `rgb(${ramp[low].map((value, i) => Math.round(value + (ramp[low + 1][i] - value) * (at - low)))})`;
}
const rowNumber = (letters) => [...letters].reduce((sum, letter) => 26 * sum + letter.charCodeAt(0) - 64, 0) - 1;

function drawSmallMap(canvas, wells, ringed = new Set()) {
  const [height, width] = data.map.shape;
  const size = Math.max(4, Math.round((ringed.size ? 480 : 240) / width));
  canvas.width = width * size;
  canvas.height = height * size;
  const context = canvas.getContext("2d");
  context.fillStyle = "#eee";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const cornerOf = (row) => [(row.column - 1) * size, rowNumber(row.row) * size];
  for (const row of wells) {
    context.fillStyle = row.role === "exclude" ? "#eee" : colorOf(row.z);
    context.fillRect(...cornerOf(row), size - 1, size - 1);
  }
  context.strokeStyle = "#000";
  context.lineWidth = Math.max(2, size / 6);
  for (const row of wells) {
    const [x, y] = cornerOf(row);
    if (ringed.has(row.well)) context.strokeRect(x, y, size - 1, size - 1);
  }
  return canvas;
}

function drawOverview() {
  byId("overview").replaceChildren(...[...plate.options].map(({ value }) => {
    const wells = (wellsOf.get(value) ?? []).filter(ofPhenotype);
    const out = rows.plates.some((row) => row.plate === value && ofPhenotype(row) && row.state !== "used");
    const button = make("button", { type: "button", value, className: out ? "out" : "", title: out ? "left out of the calls" : "" },
      drawSmallMap(make("canvas"), wells), make("span", { textContent: out ? `${value}, left out` : value }));
    button.addEventListener("click", () => showPlate(value));
    button.setAttribute("aria-pressed", value === plate.value);
    return button;
  }));
}
