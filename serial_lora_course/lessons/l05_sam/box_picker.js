// A picture over which a box is dragged: the front end of box_picker.BoxPicker. Keys have sliders beside it.

const WAIT = 80; // milliseconds between two boxes that are sent during one drag

/** The box between two points in any order, cut to the picture; null when it has no area. */
export function boxBetween([ax, ay], [bx, by], width, height) {
  const edge = (value, limit) => Math.round(Math.min(Math.max(value, 0), limit));
  const [left, right] = [edge(ax, width), edge(bx, width)].sort((a, b) => a - b);
  const [top, bottom] = [edge(ay, height), edge(by, height)].sort((a, b) => a - b);
  return right > left && bottom > top ? [left, top, right, bottom] : null;
}

function render({ model, el }) {
  const surface = document.createElement("div");
  const image = document.createElement("img");
  const outline = document.createElement("div");
  surface.className = "box-picker";
  outline.className = "box-picker-box";
  image.draggable = false;
  image.alt = "the picture with your box";
  surface.append(image, outline);
  el.append(surface);

  let start = null; // of the drag, in pixels of the picture
  let sent = 0;

  function showBox() {
    const [width, height] = [model.get("width"), model.get("height")];
    const [x0, y0, x1, y1] = model.get("box");
    outline.style.left = `${(100 * x0) / width}%`;
    outline.style.top = `${(100 * y0) / height}%`;
    outline.style.width = `${(100 * (x1 - x0)) / width}%`;
    outline.style.height = `${(100 * (y1 - y0)) / height}%`;
  }

  function showPicture() {
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(new Blob([model.get("picture")], { type: "image/png" }));
    surface.style.width = `${model.get("shown_width")}px`;
    surface.style.setProperty("--box-colour", model.get("colour"));
    showBox();
  }

  function point(event) {
    const frame = surface.getBoundingClientRect();
    return [
      ((event.clientX - frame.left) / frame.width) * model.get("width"),
      ((event.clientY - frame.top) / frame.height) * model.get("height"),
    ];
  }

  function drag(event, last) {
    if (start === null) return;
    const box = boxBetween(start, point(event), model.get("width"), model.get("height"));
    if (last) start = null;
    if (box === null) return;
    model.set("box", box);
    if (!last && Date.now() - sent < WAIT) return;
    sent = Date.now();
    model.save_changes();
  }

  surface.addEventListener("pointerdown", (event) => {
    event.preventDefault(); // no text selection
    surface.setPointerCapture(event.pointerId);
    start = point(event);
  });
  surface.addEventListener("pointermove", (event) => drag(event, false));
  surface.addEventListener("pointerup", (event) => drag(event, true));
  surface.addEventListener("pointercancel", () => (start = null));
  model.on("change:picture", showPicture);
  model.on("change:box", showBox);
  showPicture();
}

export default { render };
