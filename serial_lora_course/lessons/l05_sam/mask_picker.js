// Three pictures and a box over each: the front end of mask_picker.MaskPicker. Keys have sliders below it.

const WAIT = 60; // milliseconds between two boxes that are sent during one drag
const PICTURES = ["picture", "before", "after"];

/** The box between two points in any order, cut to the picture; null when it has no area. */
export function boxBetween([ax, ay], [bx, by], width, height) {
  const edge = (value, limit) => Math.round(Math.min(Math.max(value, 0), limit));
  const [left, right] = [edge(ax, width), edge(bx, width)].sort((a, b) => a - b);
  const [top, bottom] = [edge(ay, height), edge(by, height)].sort((a, b) => a - b);
  return right > left && bottom > top ? [left, top, right, bottom] : null;
}

function make(tag, parent, name = "") {
  const made = document.createElement(tag);
  made.className = name;
  parent.append(made);
  return made;
}

function render({ model, el }) {
  const row = make("div", el, "mask-picker");
  let start = null; // of the drag, in pixels of the picture
  let sent = 0;

  const shown = PICTURES.map((name, index) => {
    const figure = make("figure", row);
    const title = make("figcaption", figure, "mask-picker-title");
    const surface = make("div", figure, "mask-picker-surface");
    const image = make("img", surface);
    const outline = make("div", surface, "mask-picker-box");
    const caption = make("figcaption", figure);
    image.draggable = false;
    surface.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // no text selection
      surface.setPointerCapture(event.pointerId);
      start = point(surface, event);
    });
    surface.addEventListener("pointermove", (event) => drag(surface, event, false));
    surface.addEventListener("pointerup", (event) => drag(surface, event, true));
    surface.addEventListener("pointercancel", () => (start = null));

    function words() {
      title.textContent = model.get("titles")[index];
      caption.textContent = model.get("captions")[index];
      image.alt = `${title.textContent}. ${caption.textContent}`;
    }
    function picture() {
      URL.revokeObjectURL(image.src);
      image.src = URL.createObjectURL(new Blob([model.get(name)], { type: "image/png" }));
      row.style.setProperty("--shown-width", `${model.get("shown_width")}px`);
    }
    model.on(`change:${name} change:shown_width`, picture);
    model.on("change:titles change:captions", words);
    picture();
    words();
    return outline;
  });

  function showBox() {
    const [width, height] = [model.get("width"), model.get("height")];
    const [x0, y0, x1, y1] = model.get("box");
    for (const { style } of shown) {
      style.left = `${(100 * x0) / width}%`;
      style.top = `${(100 * y0) / height}%`;
      style.width = `${(100 * (x1 - x0)) / width}%`;
      style.height = `${(100 * (y1 - y0)) / height}%`;
    }
  }

  function point(surface, event) {
    const frame = surface.getBoundingClientRect();
    return [
      ((event.clientX - frame.left) / frame.width) * model.get("width"),
      ((event.clientY - frame.top) / frame.height) * model.get("height"),
    ];
  }

  function drag(surface, event, last) {
    if (start === null) return;
    const end = point(surface, event);
    const box = boxBetween(start, end, model.get("width"), model.get("height"));
    if (last) start = null;
    if (box === null) return;
    model.set("box", box);
    if (!last && Date.now() - sent < WAIT) return;
    sent = Date.now();
    model.save_changes();
  }

  row.style.setProperty("--box-colour", model.get("colour"));
  model.on("change:box change:width change:height", showBox);
  showBox();
}

export default { render };
