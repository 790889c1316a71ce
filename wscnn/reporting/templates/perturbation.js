/* All about one perturbation, at #NAME: why it was called or not, its wells, cells, replicates, other methods, doses. */
const section = byId("perturbation");
const plateState = (row) => rows.plates.find((own) => own.plate === row.plate && own.phenotype === row.phenotype);

function simpleTable(headings, lines, texts = 1) {
  const cell = (name, text, n) => make(name, { className: n < texts ? "text" : "", ...(name === "th" ? { scope: "col" } : {}) }, text);
  return make("div", { className: "scroll", tabIndex: 0 }, make("table", { className: "simple" },
    make("thead", {}, make("tr", {}, ...headings.map((text, n) => cell("th", text, n)))),
    make("tbody", {}, ...lines.map((line) => make("tr", {}, ...line.map((text, n) => cell("td", text, n)))))));
}

function scale([low, high], [from, to]) {
  const part = (to - from) / (high - low || 1);
  return (value) => from + (value - low) * part;
}
const text = (x, y, content, anchor = "middle") => {
  const element = makeSvg("text", { x, y, "text-anchor": anchor });
  element.textContent = content;
  return element;
};
const line = (x1, y1, x2, y2, name) => makeSvg("line", { x1, y1, x2, y2, class: name });

/* z of the wells, one line per plate, over those of its negative controls. */
function replicateStrip(wells) {
  const plates = [...new Set(wells.map((row) => row.plate))];
  const controls = plates.map((name) => wellsOf.get(name).filter((row) => ofPhenotype(row) && row.role === "negative" && row.z !== null));
  const values = [0, ...wells.map((row) => row.z).filter((z) => z !== null), ...controls.flat().map((row) => row.z)];
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  const x = scale([low, high], [150, 680]);
  const height = 26 * plates.length + 34;
  const svg = makeSvg("svg", { viewBox: `0 0 700 ${height}`, class: "small-chart", role: "img",
    "aria-label": "z of its wells, and of the negative controls of their plates" });
  svg.append(line(x(0), 4, x(0), height - 26, "grid"));
  plates.forEach((name, n) => {
    const y = 16 + 26 * n;
    svg.append(text(140, y + 4, name, "end"));
    for (const row of controls[n]) svg.append(line(x(row.z), y - 7, x(row.z), y + 7, "control"));
    for (const row of wells) {
      if (row.plate !== name || row.z === null) continue;
      const dot = makeSvg("circle", { cx: x(row.z), cy: y, r: 5, class: row.counts ? "well" : "well unused" });
      const title = makeSvg("title");
      title.textContent = `${row.well}: z ${format(row.z)}`;
      dot.append(title);
      svg.append(dot);
    }
  });
  for (const z of [low, 0, high]) svg.append(text(x(z), height - 8, format(z)));
  return make("figure", {}, svg, make("figcaption", {
    textContent: "z of its wells (points; hollow: not counted) and of the negative controls of their plates (lines).",
  }));
}

/* Points and, where there is one, curve and EC50 of a series of doses. */
function doseChart(series) {
  const points = rows.wells.filter((row) => row.phenotype === series.phenotype && row.role === "sample" && row.counts
    && row.z !== null && Number(row.dose) > 0 && (row.compound || row.perturbation) === series.compound);
  const logs = points.map((row) => Math.log10(row.dose));
  const ends = [Math.log10(series.lowest_dose), Math.log10(series.highest_dose)];
  const curve = (dose) => series.bottom + (series.top - series.bottom) / (1 + (series.ec50 / dose) ** series.hill);
  const zs = [0, ...points.map((row) => row.z)];
  const x = scale([ends[0] - 0.1, ends[1] + 0.1], [40, 310]), y = scale([Math.min(...zs), Math.max(...zs)], [150, 14]);
  const svg = makeSvg("svg", { viewBox: "0 0 320 190", class: "small-chart dose", role: "img",
    "aria-label": `z against the dose of ${series.compound}` });
  svg.append(line(40, 150, 310, 150, "axis"), line(40, 14, 40, 150, "axis"), line(40, y(0), 310, y(0), "grid"));
  for (const z of [Math.min(...zs), Math.max(...zs)]) svg.append(text(36, y(z) + 4, String(Number(z.toPrecision(2))), "end"));
  ends.forEach((end, n) => svg.append(text(x(end), 166, format(Number((10 ** end).toPrecision(3))), n ? "end" : "start")));
  svg.append(text(175, 184, "dose"));
  if (series.status === "ok") {
    const [low, high] = [series.ec50_low, series.ec50_high].map((dose) => x(Math.log10(dose)));
    svg.append(makeSvg("rect", { x: low, y: 14, width: Math.max(high - low, 1), height: 136, class: "interval" }));
    svg.append(line(x(Math.log10(series.ec50)), 14, x(Math.log10(series.ec50)), 150, "ec50"));
    const steps = Array.from({ length: 61 }, (_, i) => ends[0] + (ends[1] - ends[0]) * i / 60);
    svg.append(makeSvg("path", { class: "curve", d: `M${steps.map((at) => `${x(at)} ${y(curve(10 ** at))}`).join("L")}` }));
  }
  logs.forEach((at, n) => svg.append(makeSvg("circle", { cx: x(at), cy: y(points[n].z), r: 3, class: "well" })));
  const said = series.status === "ok"
    ? `EC50 ${format(series.ec50)} (${format(series.ec50_low)} to ${format(series.ec50_high)})`
    : { flat: "no rising response", open: "EC50 outside the doses or not bounded by them", "few doses": "too few doses for a curve" }[series.status];
  return make("figure", { className: "dose" }, svg, make("figcaption", {}, linkToCompound(series), `: ${said}`));
}
const linkToCompound = (series) => {
  if (hitsOf.has(series.compound)) return linkTo(series.compound);
  const own = rows.wells.find((row) => row.compound === series.compound && row.role === "sample");
  return own ? linkTo(own.perturbation, series.compound) : make("span", { textContent: series.compound });
};

const DOSES = 12;
let dosesShown = DOSES;
function drawDoses() {
  if (!byId("doses")) return;
  const order = { ok: 0, open: 1, flat: 2, "few doses": 3 };
  const series = rows.doses.filter(ofPhenotype).sort((a, b) => order[a.status] - order[b.status] || a.trend_p - b.trend_p);
  byId("dose-curves").replaceChildren(...series.slice(0, paper.matches ? Infinity : dosesShown).map(doseChart));
  byId("more-doses").hidden = series.length <= dosesShown;
}

function methodsOf(name, own) {
  const found = own.map((row) => [row.phenotype, format(row.hit) || "no", format(row.effect), format(row.q)]);
  const others = rows.beside.filter((row) => row.perturbation === name && row.method !== "novel cells")
    .map((row) => [phenotype ? `${row.method}, ${row.phenotype}` : row.method, row.hit ? "yes" : "no", format(row.effect), format(row.q)]);
  return found.length + others.length > 1
    ? [make("h3", { textContent: "Phenotypes and methods side by side" }),
      simpleTable(["phenotype or method", "hit", "effect", "q"], [...found, ...others])] : [];
}

function fillPerturbation(name) {
  const all = hitsOf.get(name).filter((row) => row.role !== "positive");
  const row = all.find(ofPhenotype) ?? all[0] ?? hitsOf.get(name)[0];
  const wells = rows.wells.filter((well) => well.perturbation === name && well.phenotype === row.phenotype);
  const plates = [...new Set(wells.map((well) => well.plate))];
  const heading = make("h2", { className: "name", textContent: name, tabIndex: -1 });
  const close = make("a", { href: "#hits", textContent: "Back to the hits" });
  const cells = typeof row.cell_percent === "number"
    ? `Cells: ${format(row.cell_percent)} % of those in negative controls${row.cell_loss ? ", a loss" : ""}.` : "";
  const parts = [close, heading, make("p", { className: "facts", textContent: factsOf(row) }),
    make("p", { className: "reason" }, make("strong", { textContent: row.hit ? "Why it was called: " : "Why it was not called: " }),
      `${row.reason ?? "not recorded"}.`)];
  if (row.caution || cells) {
    parts.push(make("p", {}, ...(row.caution ? [make("strong", { textContent: "Cautions: " }), `${row.caution}. `] : []), cells));
  }
  parts.push(make("h3", { textContent: "Wells" }), simpleTable(
    ["plate", "well", "counts", "z", "p", "score", "objects", "cells", "fields"],
    wells.map((well) => [linkToWell(well, well.plate), linkToWell(well, well.well),
      well.counts ? "yes" : `no: ${plateState(well)?.reasons || "no score"}`,
      ...["z", "p", "score", "n_objects", "n_cells", "fields"].map((key) => format(well[key]))]), 3));
  if (wells.some((well) => well.z !== null)) parts.push(make("h3", { textContent: "Replicate scores" }), replicateStrip(wells));
  parts.push(make("h3", { textContent: "Wells on their plates" }), make("div", { className: "overview" },
    ...plates.slice(0, 24).map((own) => make("figure", {},
      drawSmallMap(make("canvas"), wellsOf.get(own).filter((well) => well.phenotype === row.phenotype),
        new Set(wells.filter((well) => well.plate === own).map((well) => well.well))),
      make("figcaption", { textContent: own })))));
  const series = (rows.doses ?? []).filter((own) => own.phenotype === row.phenotype
    && wells.some((well) => (well.compound || well.perturbation) === own.compound));
  if (series.length) parts.push(make("h3", { textContent: "Dose curve" }), ...series.map(doseChart));
  parts.push(...methodsOf(name, all), make("h3", { textContent: "Cells" }));
  const group = data.gallery.groups.find((own) => own.hit && own.name === name && own.phenotype === row.phenotype);
  if (group) parts.push(...makeRows(group));
  else if (row.hit) parts.push(make("p", { textContent: "None of its staged plates is in the results folder." }));
  else parts.push(make("p", {}, "Pictures are kept for hits. For those of this perturbation: ",
    make("code", { textContent: `wscnn gallery RESULTS --perturbation '${name.replaceAll("'", "'\\''")}' --output cells.png` })));
  section.replaceChildren(...parts);
  section.hidden = false;
  return heading;
}

function nameInAddress() {
  let name;
  try {
    name = decodeURIComponent(location.hash.slice(1));
  } catch {
    return null;
  }
  if (hitsOf.has(name) && !byId(name)) return name;
  return name.startsWith("=") && hitsOf.has(name.slice(1)) ? name.slice(1) : null;
}

function openPerturbation() {
  const name = nameInAddress();
  if (name === null) return;
  const heading = fillPerturbation(name);
  section.scrollIntoView({ behavior: "instant" });
  heading.focus({ preventScroll: true });
}
