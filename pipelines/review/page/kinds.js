// Kinds of boxes, where a run was compared with something: such as lost, new and matched ones.
// Each has dashes and a letter of its own, so that nobody needs to see a colour.

const hiddenKinds = new Set();
const kindOf = (box) => data.kinds[box.kind];

// Other boxes are shown beside what the run found, and count only when a person keeps them.
const isOfRun = (box) => kindOf(box)?.of_run ?? true;

const canBeKept = (box) => !isOfRun(box) && data.classes[box.class_id].of_run;

function disagreementOf(photo) {
  const doubts = foundOn(photo).map((box) => kindOf(box).agrees ? Math.abs(box.score - box.was) : box.score);
  return doubts.reduce((sum, doubt) => sum + doubt, 0);
}

function scoreOf(box) {
  const was = kindOf(box)?.agrees ? `${box.was.toFixed(2)} → ` : "";
  return `${was}${box.score.toFixed(2)}`;
}

function countOf(boxes) {
  const counts = data.kinds.map((kind) => [boxes.filter((box) => kindOf(box) === kind).length, kind.name]);
  if (counts.length) counts.push([boxes.filter((box) => !kindOf(box)).length, "by hand"]);
  const told = counts.filter(([count]) => count).map((words) => words.join(" "));
  return told.join(", ") || `${boxes.length} box${boxes.length === 1 ? "" : "es"}`;
}

// As many letters as fit along the photo's longer side say how large one is. Those of boxes that the
// run has not stand in the opposite corner, where they do not cover the others'.
function lettersOf(photo, boxes, alongSide) {
  const size = Math.max(photo.width, photo.height) / alongSide;
  return boxes.filter(kindOf).map((box) => {
    const letter = document.createElementNS(SVG, "text");
    const [x, y] = isOfRun(box) ? [box.x1 + size * 0.15, box.y1 + size * 0.9] : [box.x2 - size * 0.8, box.y2 - size * 0.2];
    letter.setAttribute("x", x);
    letter.setAttribute("y", y);
    letter.setAttribute("font-size", size);
    letter.textContent = kindOf(box).name[0].toUpperCase();
    return letter;
  });
}

function listKinds() {
  element("kinds").append(...data.kinds.map((kind) => filterOf(kind, hiddenKinds, [sampleOf(kind)], "")));
}

function sampleOf(kind) {
  const sample = document.createElement("span");
  const line = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  line.setAttribute("viewBox", "0 0 36 8");
  path.setAttribute("d", "M0 4h36");
  path.setAttribute("stroke-dasharray", kind.dashes);
  line.append(path);
  sample.append(line, ` ${kind.name[0].toUpperCase()} = ${kind.name}`);
  return sample;
}
