// The gallery: a card for each photo.

function svgOf(photo, boxes) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${photo.width} ${photo.height}`);
  svg.append(...boxes.map(rectOf), ...lettersOf(photo, boxes, 18));
  return svg;
}

function rectOf(box) {
  const rect = document.createElementNS(SVG, "rect");
  const place = { x: box.x1, y: box.y1, width: box.x2 - box.x1, height: box.y2 - box.y1 };
  for (const [name, value] of Object.entries(place)) rect.setAttribute(name, Math.max(0, value));
  rect.setAttribute("stroke", data.classes[box.class_id].colour);
  rect.setAttribute("stroke-dasharray", kindOf(box)?.dashes ?? "");
  return rect;
}

function cardOf(photo) {
  const card = document.createElement("button");
  card.type = "button";
  card.className = "card";
  const figure = document.createElement("figure");
  if (photo.thumbnail) {
    const image = document.createElement("img");
    image.loading = "lazy";
    image.decoding = "async";
    image.alt = "";
    image.src = photo.thumbnail;
    figure.append(image);
  } else {
    const failed = document.createElement("div");
    failed.className = "failed";
    failed.textContent = [photo.error_kind, photo.error_message].filter(Boolean).join(": ");
    figure.append(failed);
  }
  const name = document.createElement("span");
  name.textContent = photo.name;
  card.append(figure, name, document.createElement("small"));
  card.title = photo.uri;
  card.dataset.index = photo.index;
  card.addEventListener("click", () => open(shown.indexOf(photo)));
  photo.card = card;
  watcher.observe(card);
  return card;
}

function paint(photo) {
  const boxes = visibleBoxesOf(photo);
  const decided = decisions.get(photo.uri);
  photo.card.dataset.decision = decided?.decision ?? "";
  photo.card.querySelector("svg")?.remove();
  if (photo.thumbnail) photo.card.querySelector("figure").append(svgOf(photo, boxes));
  const failure = [photo.error_kind, photo.error_message].filter(Boolean).join(": ");
  const count = failure || countOf(boxes);
  photo.card.querySelector("small").textContent = [count, decided?.decision].filter(Boolean).join(", ");
}

// Only cards near the window have their boxes drawn.
const near = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const photo = data.photos[entry.target.dataset.index];
    if (!entry.isIntersecting) near.delete(photo);
    else {
      near.add(photo);
      paint(photo);
    }
  }
}, { rootMargin: "300px" });

function arrange() {
  const order = ORDERS[element("order").value];
  shown = data.photos.filter(SHOWS[element("show").value]).sort((a, b) => order(a, b) || a.index - b.index);
  element("gallery").replaceChildren(...shown.map((photo) => photo.card ?? cardOf(photo)));
  refresh();
}

function refresh() {
  element("threshold-shown").value = threshold.toFixed(2);
  for (const photo of near) paint(photo);
  countAll();
}

function countAll() {
  const boxes = shown.flatMap(boxesOf);
  const total = boxes.filter(isVisible).length;
  tell(data.classes, Map.groupBy(boxes, (box) => box.class_id));
  tell(data.kinds, Map.groupBy(boxes, (box) => box.kind));
  const failed = shown.filter((photo) => photo.error_kind).length;
  element("counts").textContent =
    `${shown.length.toLocaleString("en")} photos, ${total.toLocaleString("en")} boxes, ` +
    `${failed.toLocaleString("en")} failed, ${decisions.size.toLocaleString("en")} decided`;
}

// Each filter's own count.
function tell(entries, boxes) {
  for (const entry of entries) {
    if (entry.counter) entry.counter.textContent = (boxes.get(entry.id)?.length ?? 0).toLocaleString("en");
  }
}
