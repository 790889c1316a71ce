/* What all parts of the page share: the data, the chosen phenotype and plate, elements and numbers as text. */
const byId = (id) => document.getElementById(id);
const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const unpacked = new Blob([bytesOf(byId("data").textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
const data = JSON.parse(await new Response(unpacked).text());

/* Tables come by column, each text once: convert them to rows. */
function unpack({ n, columns }) {
  const readers = Object.entries(columns).map(([name, column]) =>
    [name, Array.isArray(column) ? (i) => column[i] : (i) => column.levels[column.codes[i]] ?? null]);
  return Array.from({ length: n }, (_, i) => Object.fromEntries(readers.map(([name, read]) => [name, read(i)])));
}
const rows = Object.fromEntries(Object.entries(data.rows).map(([name, table]) => [name, unpack(table)]));

function groupBy(list, key) {
  const groups = new Map();
  for (const item of list) {
    const own = groups.get(key(item));
    if (own) own.push(item);
    else groups.set(key(item), [item]);
  }
  return groups;
}

/* The page shows one phenotype at a time where there are several, and one plate in the maps. */
const phenotype = byId("phenotype");
const plate = byId("plate");
const ofPhenotype = (row) => !phenotype || row.phenotype === undefined || row.phenotype === phenotype.value;
const wellsOf = groupBy(rows.wells, (row) => row.plate);
const paper = matchMedia("print");
const narrow = matchMedia("(max-width: 700px)");

function format(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "yes" : "";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size < 0.001 ? value.toExponential(1) : size < 1 ? value.toFixed(3) : value.toFixed(size < 100 ? 2 : 0);
}

/* Make an element. Texts are written as text, never as HTML. */
function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

function makeSvg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/* A perturbation is at #NAME; one that is called like a part of the page is at #=NAME. */
const addressOf = (name) => `#${byId(name) ? "=" : ""}${encodeURIComponent(name)}`;
const linkTo = (name, text = name) => make("a", { href: addressOf(name), textContent: text });

function linkToWell(row, text) {
  const link = make("a", { href: "#plates", textContent: text });
  link.addEventListener("click", () => showPlate(row.plate, row.well));
  return link;
}
