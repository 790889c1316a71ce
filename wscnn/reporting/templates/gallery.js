/* Pictures of cells: sprites are decoded when their group comes near the view. */
const pictures = unpack(data.gallery.pictures);
const sprites = byId("sprites").textContent.trim().split("\n");
const lengths = new Map();
for (const { sprite, at } of pictures) lengths.set(sprite, Math.max(lengths.get(sprite) ?? 0, at + 1));
const addresses = new Map();

function spriteOf(number) {
  if (!addresses.has(number)) {
    const [image, saliency] = sprites[number].split(" ");
    const address = (text, type) => (text ? URL.createObjectURL(new Blob([bytesOf(text)], { type })) : null);
    addresses.set(number, { image: address(image, "image/webp"), saliency: address(saliency, "image/png") });
  }
  return addresses.get(number);
}

function legend() {
  const { channels } = data.gallery;
  return make("span", { className: "channels" }, ...channels.map(({ name, color }) => {
    const word = make("span", { textContent: name });
    word.style.color = `#${color}`;
    return word;
  }));
}

function makePicture(number, below) {
  const { sprite, at, outline, score, ...row } = pictures[number];
  const { image, saliency } = spriteOf(sprite);
  const where = `plate ${row.plate}, well ${row.well}, field ${row.field}`;
  const layer = (source, alt, className) => {
    const img = make("img", { src: source, alt, className });
    img.style.width = `${100 * lengths.get(sprite)}%`;
    img.style.left = `${-100 * at}%`;
    return img;
  };
  const frame = make("div", { className: "frame" }, layer(image, `${below ? "Position" : "Cell"} on ${where}`, "cell"));
  if (saliency) frame.append(layer(saliency, "", "saliency"));
  if (outline) {
    const { side } = data.gallery;
    frame.append(makeSvg("svg", { class: "outlines", viewBox: `0 0 ${side} ${side}`, "aria-hidden": "true" },
      makeSvg("path", { class: "under", d: outline }), makeSvg("path", { d: outline })));
  }
  frame.append(legend());
  const scored = score === null ? [] : [make("br"), below ? `${format(score)}, below threshold` : format(score)];
  return make("figure", { className: `picture${below ? " below" : ""}` }, frame,
    make("figcaption", {}, linkToWell(row, `${row.plate} ${row.well}`), make("br"),
      `field ${row.field} (${row.y}, ${row.x})`, ...scored));
}

const makeRows = (group) => group.rows.flatMap(({ caption, below, pictures: shown }) =>
  [make("h4", { textContent: caption }),
    make("div", { className: "pictures" }, ...shown.map((number) => makePicture(number, below)))]);

const several = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
const hitsOf = groupBy(rows.hits, (row) => row.perturbation);
const hitRow = (group) => hitsOf.get(group.name)?.find(
  (row) => row.phenotype === group.phenotype && row.role !== "positive");

function factsOf(row) {
  const interval = typeof row.effect_low === "number" ? ` (${format(row.effect_low)} to ${format(row.effect_high)})` : "";
  return [
    `${row.hit ? "Hit" : "Not a hit"}${row.rank === null ? "" : `, rank ${row.rank}`}${phenotype ? `, ${row.phenotype}` : ""}`,
    `effect ${format(row.effect) || "not known"}${interval}`,
    row.q === null ? "" : `q ${format(row.q)}`,
    typeof row.n_wells === "number" ? `${several(row.n_wells, "well")} on ${several(row.n_plates, "plate")}` : "",
  ].filter(Boolean).join(" · ");
}

function makeGroup(group) {
  const row = group.hit && hitRow(group);
  const title = group.name[0].toUpperCase() + group.name.slice(1);
  const article = make("article", { className: "group" },
    group.hit ? make("h3", { className: "name" }, linkTo(group.name))
      : make("h3", { textContent: phenotype ? `${title}: ${group.phenotype}` : title }));
  if (row) article.append(make("p", { className: "facts", textContent: factsOf(row) }));
  if (group.name === "suspects" && !group.hit) article.id = `suspects-${group.phenotype}`;
  // The room that its pictures will take, so that the page does not jump.
  article.style.minHeight = `${60 + 235 * group.rows.length}px`;
  article.fill = () => {
    article.append(...makeRows(group));
    article.style.minHeight = "";
    article.fill = () => {};
  };
  return article;
}

const groups = data.gallery.groups.map(makeGroup);
byId("groups").append(...groups);
const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) {
      target.fill();
      near.unobserve(target);
    }
  }
}, { rootMargin: "900px" });
for (const article of groups) near.observe(article);
paper.addEventListener("change", () => { for (const article of groups) article.fill(); });
for (const box of document.querySelectorAll("input[data-layer]")) {
  const apply = () => document.body.classList.toggle(`no-${box.dataset.layer}`, !box.checked);
  box.addEventListener("change", apply);
  apply();
}
