"use strict";
// The page of a review: a gallery, one photo large, and what people decided. No library, no network.
// The files of this folder become one script, this one first and begin.js last.

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

// What is to be seen of a photo: what a person left, or else what the model said.
function boxesOf(photo) {
  const decided = decisions.get(photo.uri);
  return decided && decided.decision !== "rejected" ? decided.boxes : foundOn(photo);
}

function foundOn(photo) {
  return photo.boxes
    .map(([x1, y1, x2, y2, score, class_id, kind, was]) =>
      ({ x1, y1, x2, y2, score, class_id, kind, was, source: "model" }))
    .filter((box) => box.score >= threshold);
}

function isVisible(box) {
  return !hidden.has(box.class_id) && !hiddenKinds.has(box.kind);
}

function visibleBoxesOf(photo) {
  return boxesOf(photo).filter(isVisible);
}

function doubtOf(photo) {
  return Math.min(1, ...photo.boxes.map((box) => Math.abs(box[4] - threshold)));
}

const ORDERS = {
  sample: (a, b) => a.index - b.index,
  doubt: (a, b) => doubtOf(a) - doubtOf(b),
  disagreement: (a, b) => disagreementOf(b) - disagreementOf(a),
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
