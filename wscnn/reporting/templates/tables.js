/* Sortable, searchable tables with a choice of columns, and a download of what they show. */
const PAGE = 50;

function cellOf(table, column, row) {
  const value = row[column];
  if (table === "hits" && column === "perturbation" && row.role !== "positive") return linkTo(value);
  if (column === "plate" || column === "well") return linkToWell(row, format(value));
  if (column === "effect" && typeof row.effect_low === "number") {
    return make("span", {}, `${format(value)} `, make("span", {
      className: "interval", textContent: `(${format(row.effect_low)} to ${format(row.effect_high)})`,
    }));
  }
  if (column === "cell_percent" && row.cell_loss) {
    return make("strong", { className: "loss", textContent: `${format(value)} loss` });
  }
  return format(value);
}

/* Text that a spreadsheet would take for a formula gets an apostrophe in front. */
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const text = /^[=+\-@\t\r\n]/.test(value) ? `'${value}` : value;
  return /[",\r\n']/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download(name, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function makeTable(name, keep) {
  const table = byId(`${name}-table`);
  if (!table) return;
  const all = rows[name];
  const isText = (column) => all.some((row) => typeof row[column] === "string");
  const columns = data.tables[name].map((column) => ({ ...column, text: isText(column.name) }));
  const search = byId(`${name}-search`);
  const state = { column: null, up: true, limit: PAGE, asked: new Map() };
  const head = table.createTHead().insertRow();
  const body = table.createTBody();
  const isShown = (column) => state.asked.get(column.name) ?? (narrow.matches && !paper.matches ? column.narrow : column.wide);

  const boxes = columns.map((column) => {
    const box = make("input", { type: "checkbox" });
    box.addEventListener("change", () => { state.asked.set(column.name, box.checked); draw(); });
    return [column, box, make("label", { title: column.meaning }, box, ` ${column.heading}`)];
  });
  const chooser = make("details", { className: "columns" },
    make("summary", { textContent: "Columns" }), make("div", {}, ...boxes.map(([, , label]) => label)));
  search.parentElement.append(chooser);

  function sortBy(column) {
    state.up = state.column === column.name ? !state.up : true;
    state.column = column.name;
    draw();
    head.querySelector("[aria-sort] button")?.focus();
  }
  function compare(a, b) {
    const [x, y] = [a[state.column], b[state.column]];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    return state.up ? order : -order;
  }
  function found() {
    const sought = search.value.trim().toLowerCase();
    const has = (row) => columns.some(({ name, text }) => text && format(row[name]).toLowerCase().includes(sought));
    const kept = all.filter((row) => ofPhenotype(row) && keep(row) && (!sought || has(row)));
    return state.column ? kept.sort(compare) : kept;
  }
  function draw() {
    const shown = columns.filter(isShown);
    for (const [column, box] of boxes) box.checked = isShown(column);
    head.replaceChildren(...shown.map((column) => {
      const button = make("button", { type: "button", textContent: column.heading });
      button.addEventListener("click", () => sortBy(column));
      const th = make("th", { scope: "col", title: column.meaning, className: column.text ? "text" : "" }, button);
      if (state.column === column.name) th.setAttribute("aria-sort", state.up ? "ascending" : "descending");
      return th;
    }));
    const list = found();
    const limit = paper.matches ? Infinity : state.limit;
    body.replaceChildren(...list.slice(0, limit).map((row) => {
      const tr = make("tr", { className: row.hit === true ? "hit" : "" });
      for (const column of shown) {
        tr.append(make("td", { className: column.text ? "text" : "" }, cellOf(name, column.name, row)));
      }
      return tr;
    }));
    if (list.length > limit) {
      const more = make("button", { type: "button", textContent: "Show more" });
      more.addEventListener("click", () => { state.limit += 10 * PAGE; draw(); });
      body.append(make("tr", { className: "more" }, make("td", { colSpan: shown.length }, more)));
    }
    byId(`${name}-shown`).textContent = `${Math.min(list.length, limit)} of ${all.length}`;
  }
  /* All columns of what is found, also of rows that are not drawn yet. */
  byId(`${name}-csv`)?.addEventListener("click", () => {
    const names = Object.keys(data.rows[name].columns).filter((column) => !data.internal.includes(column));
    const lines = [names, ...found().map((row) => names.map((column) => row[column]))];
    download(`${name}.csv`, `\ufeff${lines.map((line) => line.map(csvCell).join(",")).join("\r\n")}\r\n`);
  });
  search.addEventListener("input", draw);
  for (const change of [paper, narrow]) change.addEventListener("change", draw);
  draw();
  return draw;
}
