// Boxes, with the mouse or a finger.

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
