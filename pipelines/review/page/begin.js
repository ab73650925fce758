// What keys and clicks do.

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = {
  a: accept,
  r: () => decide("rejected", []),
  u: undo,
  d: () => toggleDrawing(),
  n: addInTheMiddle,
  b: () => choose((chosen + 1) % Math.max(1, visibleBoxesOf(shown[current]).length)),
  k: keepLost,
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
  listKinds();
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
    keep: keepLost,
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
