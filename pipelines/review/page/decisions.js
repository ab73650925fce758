// What a person decides about the photo that is open.

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

// Change the boxes that are there; hidden ones stay as they are.
function correct(change) {
  const photo = shown[current];
  const boxes = boxesOf(photo).map((box) => ({ ...box }));
  const visible = boxes.filter(isVisible);
  const changed = change(visible) ?? visible;
  decide("corrected", [...changed, ...boxes.filter((box) => !isVisible(box))].map(whole));
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

// A class that the run does not have cannot be learnt from it: such a box stays a lost one.
function byHand(box) {
  if (!data.classes[box.class_id].of_run) return box;
  return Object.assign(box, { source: "person", score: null, kind: undefined, was: undefined });
}

// A box that only the other side has: the person says that it is there.
function keepLost() {
  const box = visibleBoxesOf(shown[current])[chosen];
  if (box && canBeKept(box)) correct((boxes) => { byHand(boxes[chosen]); });
}

function giveClass(classId) {
  if (chosen < 0 || !data.classes[classId]?.of_run) return;
  correct((boxes) => {
    boxes[chosen].class_id = classId;
    byHand(boxes[chosen]);
  });
}

function remove() {
  if (chosen < 0) return;
  const gone = chosen;
  chosen = -1;
  correct((boxes) => boxes.filter((_, index) => index !== gone));
}

function add(box) {
  const named = element("class").value || element("class").options[0]?.value;
  if (named === undefined) return show(); // the run has no class that it could be of
  correct((boxes) => [...boxes, byHand({ ...box, class_id: Number(named) })]);
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
