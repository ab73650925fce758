// corrections.json, to be read by `yolox-ray prepare --corrections`.

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
        boxes: (decision === "rejected" ? [] : boxes.filter(isOfRun)).map(({ class_id, kind, was, ...box }) => ({
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
