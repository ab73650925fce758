// Classes: a filter, a count and a histogram of scores each.

function listClasses() {
  const scores = data.classes.map(() => new Array(BINS).fill(0));
  for (const photo of data.photos) {
    for (const box of photo.boxes) scores[box[5]][Math.min(BINS - 1, Math.floor(box[4] * BINS))] += 1;
  }
  const seen = data.classes.filter((entry) => scores[entry.id].some(Boolean));
  element("classes").append(...seen.map((entry) => classOf(entry, scores[entry.id])));
  const named = data.classes.filter((entry) => entry.of_run);
  element("class").append(...named.map((entry) => new Option(entry.name, entry.id)));
}

function classOf(entry, scores) {
  const colour = document.createElement("i");
  colour.style.background = entry.colour;
  return filterOf(entry, hidden, [colour, entry.name], histogramOf(scores));
}

// A box to tick, without which the entry's boxes are in `unwanted`, and the entry's count.
function filterOf(entry, unwanted, shownAs, more) {
  const label = document.createElement("label");
  const tick = document.createElement("input");
  tick.type = "checkbox";
  tick.checked = true;
  tick.addEventListener("change", () => {
    if (tick.checked) unwanted.delete(entry.id);
    else unwanted.add(entry.id);
    refresh();
  });
  entry.counter = document.createElement("b");
  label.append(tick, ...shownAs, entry.counter, more);
  return label;
}

function histogramOf(scores) {
  const svg = document.createElementNS(SVG, "svg");
  const highest = Math.max(...scores);
  svg.setAttribute("viewBox", `0 0 ${BINS} 10`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "scores from 0 to 1");
  scores.forEach((count, bin) => {
    const bar = document.createElementNS(SVG, "path");
    const height = (10 * count) / highest;
    bar.setAttribute("d", `M${bin} 10v${-height}h.9v${height}z`);
    svg.append(bar);
  });
  return svg;
}
