// One photo, large, with a list of its boxes.

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
  const rects = boxes.map((box, index) => {
    const rect = rectOf(box);
    rect.classList.toggle("chosen", index === chosen);
    rect.addEventListener("pointerdown", (event) => beginToMove(event, index));
    return rect;
  });
  const chosenLast = rects.toSorted((a, b) => a.matches(".chosen") - b.matches(".chosen")); // on top
  overlay.replaceChildren(...chosenLast, ...lettersOf(photo, boxes, 36));
  element("boxes").replaceChildren(...boxes.map(lineOf));
  element("accept").setAttribute("aria-pressed", decided?.decision === "accepted");
  element("reject").setAttribute("aria-pressed", decided?.decision === "rejected");
  element("class").value = boxes[chosen]?.class_id ?? "";
  element("remove").disabled = element("class").disabled = !boxes[chosen];
  element("keep").disabled = !boxes[chosen] || !canBeKept(boxes[chosen]);
  element("draw").disabled = !photo.thumbnail;
  element("accept").disabled = Boolean(photo.error_kind);
  if (photo.card) paint(photo);
  countAll();
}

function lineOf(box, index) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const score = box.source === "model" ? scoreOf(box) : "by hand";
  button.type = "button";
  button.textContent = [kindOf(box)?.name, data.classes[box.class_id].name, score].filter(Boolean).join(" ");
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
