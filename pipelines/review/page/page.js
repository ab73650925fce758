"use strict";
// The page of a review: a gallery, one photo large, and what people decided. No library, no network.

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const BINS = 20;

// What was decided, by photo: kept in the browser, saved as corrections.json.
const key = `yolox-ray review ${data.id}`;
const decisions = new Map(Object.entries(JSON.parse(localStorage.getItem(key) ?? "{}")));
const hidden = new Set();
let threshold = Number(element("threshold").value);
let shown = [];
let current = -1;
let chosen = -1;

function keep() {
  localStorage.setItem(key, JSON.stringify(Object.fromEntries(decisions)));
}

// ---- what is to be seen of a photo -----------------------------------------------------------

function boxesOf(photo) {
  const decided = decisions.get(photo.uri);
  if (decided && decided.decision !== "rejected") return decided.boxes;
  return photo.boxes
    .map(([x1, y1, x2, y2, score, classId]) => ({ x1, y1, x2, y2, score, class_id: classId, source: "model" }))
    .filter((box) => box.score >= threshold);
}

function visibleBoxesOf(photo) {
  return boxesOf(photo).filter((box) => !hidden.has(box.class_id));
}

function doubtOf(photo) {
  return Math.min(1, ...photo.boxes.map((box) => Math.abs(box[4] - threshold)));
}

const ORDERS = {
  sample: (a, b) => a.index - b.index,
  doubt: (a, b) => doubtOf(a) - doubtOf(b),
  score: (a, b) => (b.boxes[0]?.[4] ?? -1) - (a.boxes[0]?.[4] ?? -1),
  boxes: (a, b) => visibleBoxesOf(b).length - visibleBoxesOf(a).length,
  failure: (a, b) => (b.error_kind ?? "").localeCompare(a.error_kind ?? ""),
  name: (a, b) => a.uri.localeCompare(b.uri),
};

const SHOWS = {
  all: () => true,
  boxes: (photo) => visibleBoxesOf(photo).length > 0,
  empty: (photo) => !photo.error_kind && visibleBoxesOf(photo).length === 0,
  failed: (photo) => Boolean(photo.error_kind),
  open: (photo) => !decisions.has(photo.uri),
  decided: (photo) => decisions.has(photo.uri),
};

// ---- the gallery -----------------------------------------------------------------------------

function svgOf(photo, boxes) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${photo.width} ${photo.height}`);
  svg.append(...boxes.map(rectOf));
  return svg;
}

function rectOf(box) {
  const rect = document.createElementNS(SVG, "rect");
  const place = { x: box.x1, y: box.y1, width: box.x2 - box.x1, height: box.y2 - box.y1 };
  for (const [name, value] of Object.entries(place)) rect.setAttribute(name, Math.max(0, value));
  rect.setAttribute("stroke", data.classes[box.class_id].colour);
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
  const count = failure || `${boxes.length} box${boxes.length === 1 ? "" : "es"}`;
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
  const perClass = new Map();
  let total = 0;
  for (const photo of shown) {
    for (const box of boxesOf(photo)) {
      perClass.set(box.class_id, (perClass.get(box.class_id) ?? 0) + 1);
      if (!hidden.has(box.class_id)) total += 1;
    }
  }
  for (const entry of data.classes) {
    if (entry.counter) entry.counter.textContent = (perClass.get(entry.id) ?? 0).toLocaleString("en");
  }
  const failed = shown.filter((photo) => photo.error_kind).length;
  element("counts").textContent =
    `${shown.length.toLocaleString("en")} photos, ${total.toLocaleString("en")} boxes, ` +
    `${failed.toLocaleString("en")} failed, ${decisions.size.toLocaleString("en")} decided`;
}

// ---- classes: a filter, a count and a histogram of scores each --------------------------------

function listClasses() {
  const scores = data.classes.map(() => new Array(BINS).fill(0));
  for (const photo of data.photos) {
    for (const box of photo.boxes) scores[box[5]][Math.min(BINS - 1, Math.floor(box[4] * BINS))] += 1;
  }
  const seen = data.classes.filter((entry) => scores[entry.id].some(Boolean));
  element("classes").append(...seen.map((entry) => classOf(entry, scores[entry.id])));
  element("class").append(...data.classes.map((entry) => new Option(entry.name, entry.id)));
}

function classOf(entry, scores) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = true;
  box.addEventListener("change", () => {
    if (box.checked) hidden.delete(entry.id);
    else hidden.add(entry.id);
    refresh();
  });
  const colour = document.createElement("i");
  colour.style.background = entry.colour;
  entry.counter = document.createElement("b");
  label.append(box, colour, entry.name, entry.counter, histogramOf(scores));
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

// ---- one photo, large ------------------------------------------------------------------------

function open(index) {
  if (index < 0 || index >= shown.length) return;
  current = index;
  chosen = -1;
  const photo = shown[current];
  element("photo").src = photo.thumbnail ?? "";
  element("photo").hidden = !photo.thumbnail;
  element("name").textContent = photo.name;
  show();
  if (!element("viewer").open) element("viewer").showModal();
}

function show() {
  const photo = shown[current];
  const boxes = visibleBoxesOf(photo);
  const decided = decisions.get(photo.uri);
  element("facts").textContent = [
    photo.uri,
    photo.error_kind && `${photo.error_kind}: ${photo.error_message}`,
    photo.width && `${photo.width} x ${photo.height} px`,
    photo.run && `run ${photo.run}`,
    decided && `${decided.decision} by ${decided.by || "somebody"}`,
  ].filter(Boolean).join(" · ");
  const overlay = element("overlay");
  overlay.setAttribute("viewBox", `0 0 ${photo.width || 1} ${photo.height || 1}`);
  overlay.replaceChildren(...boxes.map((box, index) => {
    const rect = rectOf(box);
    rect.classList.toggle("chosen", index === chosen);
    rect.addEventListener("pointerdown", (event) => beginToMove(event, index));
    return rect;
  }));
  element("boxes").replaceChildren(...boxes.map(lineOf));
  element("accept").setAttribute("aria-pressed", decided?.decision === "accepted");
  element("reject").setAttribute("aria-pressed", decided?.decision === "rejected");
  element("class").value = boxes[chosen]?.class_id ?? "";
  element("remove").disabled = element("class").disabled = !boxes[chosen];
  element("draw").disabled = !photo.thumbnail;
  element("accept").disabled = Boolean(photo.error_kind);
  if (photo.card) paint(photo);
  countAll();
}

function lineOf(box, index) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const score = box.source === "model" ? box.score.toFixed(2) : "by hand";
  button.type = "button";
  button.textContent = `${data.classes[box.class_id].name} ${score}`;
  button.style.borderLeftColor = data.classes[box.class_id].colour;
  button.setAttribute("aria-pressed", index === chosen);
  button.addEventListener("click", () => choose(index));
  item.append(button);
  return item;
}

function choose(index) {
  chosen = index;
  show();
}

// ---- decisions -------------------------------------------------------------------------------

function decide(decision, boxes) {
  const photo = shown[current];
  if (decision !== "rejected" && !photo.thumbnail) return; // nobody has seen it
  if (decision === "accepted" && photo.error_kind) return; // nothing was said of it
  decisions.set(photo.uri, {
    decision,
    boxes,
    by: element("by").value.trim(),
    at: new Date().toISOString(),
  });
  keep();
  show();
}

function accept() {
  const decided = decisions.get(shown[current].uri);
  if (decided?.decision === "corrected") return;
  decide("accepted", boxesOf(shown[current]));
}

function undo() {
  decisions.delete(shown[current].uri);
  chosen = -1;
  keep();
  show();
}

// Change the boxes that are there; hidden classes stay as they are.
function correct(change) {
  const photo = shown[current];
  const boxes = boxesOf(photo).map((box) => ({ ...box }));
  const visible = boxes.filter((box) => !hidden.has(box.class_id));
  const changed = change(visible) ?? visible;
  decide("corrected", [...changed, ...boxes.filter((box) => hidden.has(box.class_id))].map(whole));
}

function whole(box) {
  const { width, height } = shown[current];
  const [x1, x2] = [box.x1, box.x2].sort((a, b) => a - b).map((x) => clamp(x, width));
  const [y1, y2] = [box.y1, box.y2].sort((a, b) => a - b).map((y) => clamp(y, height));
  return { ...box, x1, y1, x2, y2 };
}

function clamp(value, most) {
  return Math.round(Math.min(most, Math.max(0, value)) * 100) / 100;
}

function byHand(box) {
  return Object.assign(box, { source: "person", score: null });
}

function giveClass(classId) {
  if (chosen < 0 || !data.classes[classId]) return;
  correct((boxes) => { byHand(boxes[chosen]).class_id = classId; });
}

function remove() {
  if (chosen < 0) return;
  const gone = chosen;
  chosen = -1;
  correct((boxes) => boxes.filter((_, index) => index !== gone));
}

function add(box) {
  const classId = Number(element("class").value) || 0;
  correct((boxes) => [...boxes, byHand({ ...box, class_id: classId })]);
  choose(visibleBoxesOf(shown[current]).length - 1);
}

function addInTheMiddle() {
  const { width, height } = shown[current];
  add({ x1: width * 0.4, y1: height * 0.4, x2: width * 0.6, y2: height * 0.6 });
}

function shift(dx, dy, sides) {
  if (chosen < 0) return;
  const step = Math.max(shown[current].width, shown[current].height) / 200;
  correct((boxes) => {
    const box = byHand(boxes[chosen]);
    for (const side of sides) box[side] += step * (side.startsWith("x") ? dx : dy);
  });
}

// ---- with the mouse or a finger --------------------------------------------------------------

function pointOf(event) {
  const point = new DOMPoint(event.clientX, event.clientY);
  return point.matrixTransform(element("overlay").getScreenCTM().inverse());
}

function beginToMove(event, index) {
  if (element("draw").ariaPressed === "true") return;
  event.stopPropagation();
  chosen = index;
  const from = pointOf(event);
  const before = { ...visibleBoxesOf(shown[current])[index] };
  follow(event, (point, ended) => {
    const [dx, dy] = [point.x - from.x, point.y - from.y];
    if (Math.abs(dx) + Math.abs(dy) < 2) return ended && show();
    correct((boxes) => {
      const moved = { x1: before.x1 + dx, x2: before.x2 + dx, y1: before.y1 + dy, y2: before.y2 + dy };
      Object.assign(byHand(boxes[index]), moved);
    });
  });
}

function beginToDraw(event) {
  if (element("draw").ariaPressed !== "true") return;
  const from = pointOf(event);
  const rect = document.createElementNS(SVG, "rect");
  rect.setAttribute("stroke", "currentColor");
  element("overlay").append(rect);
  follow(event, (point, ended) => {
    const box = { x1: from.x, y1: from.y, x2: point.x, y2: point.y };
    const [x1, y1] = [Math.min(box.x1, box.x2), Math.min(box.y1, box.y2)];
    const size = { x: x1, y: y1, width: Math.abs(box.x2 - box.x1), height: Math.abs(box.y2 - box.y1) };
    for (const [name, value] of Object.entries(size)) rect.setAttribute(name, value);
    if (!ended) return;
    toggleDrawing(false);
    if (size.width >= 2 && size.height >= 2) add(box);
    else show();
  });
}

function follow(event, moved) {
  const overlay = element("overlay");
  const move = (next) => moved(pointOf(next), false);
  overlay.setPointerCapture(event.pointerId);
  overlay.addEventListener("pointermove", move);
  overlay.addEventListener("pointerup", (last) => {
    overlay.removeEventListener("pointermove", move);
    moved(pointOf(last), true);
  }, { once: true });
}

function toggleDrawing(on = element("draw").ariaPressed !== "true") {
  if (!shown[current].thumbnail) return;
  element("draw").ariaPressed = String(on);
  document.querySelector(".stage").classList.toggle("drawing", on);
}

// ---- saving ----------------------------------------------------------------------------------

function corrections() {
  const decided = data.photos.filter((photo) => decisions.has(photo.uri));
  return {
    format: "yolox-ray corrections",
    version: 1,
    table: data.table,
    classes: data.classes.map((entry) => entry.name),
    saved_at: new Date().toISOString(),
    photos: decided.map((photo) => {
      const { decision, boxes, by, at } = decisions.get(photo.uri);
      return {
        image_uri: photo.uri,
        etag: photo.etag,
        run: photo.run,
        width: photo.width,
        height: photo.height,
        decision,
        by,
        at,
        boxes: (decision === "rejected" ? [] : boxes).map(({ class_id, ...box }) => ({
          class_name: data.classes[class_id].name,
          ...box,
        })),
      };
    }),
  };
}

function save() {
  const text = JSON.stringify(corrections(), null, 2);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "corrections.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// ---- wiring ----------------------------------------------------------------------------------

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = {
  a: accept,
  r: () => decide("rejected", []),
  u: undo,
  d: () => toggleDrawing(),
  n: addInTheMiddle,
  b: () => choose((chosen + 1) % Math.max(1, visibleBoxesOf(shown[current]).length)),
  c: () => element("class").focus(),
  Delete: remove,
  Backspace: remove,
};

function onKey(event) {
  if (!element("viewer").open || event.ctrlKey || event.metaKey) return;
  if (["INPUT", "SELECT"].includes(event.target.tagName)) return;
  const arrow = ARROWS[event.key];
  if (arrow && event.shiftKey) shift(...arrow, ["x1", "x2", "y1", "y2"]);
  else if (arrow && event.altKey) shift(...arrow, ["x2", "y2"]);
  else if (arrow) open(current + arrow[0]);
  else if (/^[1-9]$/.test(event.key)) giveClass(Number(event.key) - 1);
  else if (KEYS[event.key] ?? KEYS[event.key.toLowerCase()]) (KEYS[event.key] ?? KEYS[event.key.toLowerCase()])();
  else return;
  event.preventDefault();
}

function begin() {
  data.photos.forEach((photo, index) => { photo.index = index; });
  listClasses();
  element("by").value = localStorage.getItem("yolox-ray by") ?? "";
  element("by").addEventListener("change", () => localStorage.setItem("yolox-ray by", element("by").value));
  element("threshold").addEventListener("input", () => {
    threshold = Number(element("threshold").value);
    refresh();
  });
  for (const id of ["order", "show"]) element(id).addEventListener("change", arrange);
  element("threshold").addEventListener("change", arrange);
  element("controls").addEventListener("submit", (event) => event.preventDefault());
  const clicks = {
    save,
    accept,
    reject: KEYS.r,
    undo,
    remove,
    draw: () => toggleDrawing(),
    previous: () => open(current - 1),
    next: () => open(current + 1),
    close: () => element("viewer").close(),
  };
  for (const [id, act] of Object.entries(clicks)) element(id).addEventListener("click", act);
  element("class").addEventListener("change", () => giveClass(Number(element("class").value)));
  element("overlay").addEventListener("pointerdown", beginToDraw);
  element("viewer").addEventListener("close", () => shown[current]?.card?.focus());
  document.addEventListener("keydown", onKey);
  arrange();
  document.body.dataset.ready = "true";
}

begin();
