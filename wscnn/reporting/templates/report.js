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
byId("more-doses")?.addEventListener("click", () => { dosesShown += 5 * DOSES; drawDoses(); });
paper.addEventListener("change", drawDoses);
phenotype?.addEventListener("change", () => {
  for (const draw of [...drawTables, drawOverview, drawDoses]) draw();
  drawCharts(charts);
  if (!section.hidden && nameInAddress() !== null) fillPerturbation(nameInAddress());
});
for (const link of document.querySelectorAll("a[data-plate]")) {
  link.addEventListener("click", () => showPlate(link.dataset.plate, link.dataset.well));
}
addEventListener("hashchange", openPerturbation);
drawOverview();
drawDoses();
await showPlate(plate.value);
await drawCharts(charts.filter((name) => !isMap(name)));
openPerturbation();
document.documentElement.dataset.ready = "yes";
