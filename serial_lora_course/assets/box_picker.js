// A picture over which a box is dragged: the front end of serial_lora_course.panels.masks.BoxPicker.
//
// The picture is an <img> and the box a <div> placed in per cent of it, so both stay sharp on every
// screen and at every zoom. A box is [x0, y0, x1, y1] at pixel edges of the picture.

const WAIT = 80; // milliseconds between two boxes that are sent during one drag
const CLICK = 4; // a pointer that moved fewer screen pixels than this has clicked
const HOW_TO =
  "Drag a box over an object, or move the box with the arrow keys and resize it with Shift and " +
  "arrow keys.";
const NOT_A_BOX = "That was a click: press at one corner of an object and release at the opposite.";
const ARROWS = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The box between two points in any order, cut to the picture; null when it has no area. */
export function boxBetween([ax, ay], [bx, by], { width, height }) {
  const edge = (value, limit) => Math.round(clamp(value, 0, limit));
  const [left, right] = [edge(ax, width), edge(bx, width)].sort((a, b) => a - b);
  const [top, bottom] = [edge(ay, height), edge(by, height)].sort((a, b) => a - b);
  return right > left && bottom > top ? [left, top, right, bottom] : null;
}

/** The box moved by [dx, dy], of the same size, as far as the picture reaches. */
export function movedBox([x0, y0, x1, y1], [dx, dy], { width, height }) {
  const right = clamp(dx, -x0, width - x1);
  const down = clamp(dy, -y0, height - y1);
  return [x0 + right, y0 + down, x1 + right, y1 + down];
}

/** The box with its right and lower edge moved by [dx, dy]; at least one pixel stays. */
export function resizedBox([x0, y0, x1, y1], [dx, dy], { width, height }) {
  return [x0, y0, clamp(x1 + dx, x0 + 1, width), clamp(y1 + dy, y0 + 1, height)];
}

/** Send at once, then the latest value at most every `wait` milliseconds. */
export function throttled(send, wait) {
  let timer = null;
  let waiting = null;
  const sendWaiting = () => {
    timer = null;
    if (waiting === null) return;
    const value = waiting;
    waiting = null;
    timer = setTimeout(sendWaiting, wait);
    send(value);
  };
  const stop = () => {
    clearTimeout(timer);
    timer = waiting = null;
  };
  return {
    later(value) {
      waiting = value;
      if (timer === null) sendWaiting();
    },
    now(value) {
      stop();
      send(value);
    },
    stop,
  };
}

function add(parent, tag, name) {
  const node = document.createElement(tag);
  node.className = name;
  parent.appendChild(node);
  return node;
}

function render({ model, el }) {
  const root = add(el, "div", "box-picker");
  const title = add(root, "div", "box-picker-title");
  const surface = add(root, "div", "box-picker-surface");
  const image = add(surface, "img", "box-picker-picture");
  const outline = add(surface, "div", "box-picker-box");
  const message = add(root, "div", "box-picker-message");
  surface.tabIndex = 0;
  surface.setAttribute("role", "application");
  // JupyterLab would take the arrow keys to move between cells.
  surface.setAttribute("data-lm-suppress-shortcuts", "true");
  image.draggable = false;
  image.alt = "";
  message.setAttribute("role", "status");

  let drag = null; // of the pointer that is down: where it began, and the box as it was before
  let box = null; // what is drawn
  const size = () => ({ width: model.get("width"), height: model.get("height") });
  const sender = throttled((value) => {
    model.set("box", value);
    model.save_changes();
  }, WAIT);

  function showBox(value) {
    box = value;
    const { width, height } = size();
    const [x0, y0, x1, y1] = box;
    const place = { left: x0 / width, top: y0 / height };
    const extent = { width: (x1 - x0) / width, height: (y1 - y0) / height };
    for (const [name, share] of Object.entries({ ...place, ...extent })) {
      outline.style[name] = `${100 * share}%`;
    }
    const words = `Box: x ${x0} to ${x1} of ${width}, y ${y0} to ${y1} of ${height}.`;
    surface.setAttribute("aria-label", `${model.get("label")}. ${HOW_TO} ${words}`);
  }

  function showPicture() {
    const { width, height } = size();
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(new Blob([model.get("picture")], { type: "image/png" }));
    root.style.width = `${model.get("shown_width")}px`;
    surface.style.aspectRatio = `${width} / ${height}`;
    surface.classList.toggle("box-picker-enlarged", width < model.get("shown_width"));
    surface.style.setProperty("--box-colour", model.get("colour"));
    title.textContent = model.get("label");
    if (drag === null) showBox(model.get("box"));
  }

  function showMessage() {
    message.textContent = model.get("message");
  }

  const onBox = () => drag === null && showBox(model.get("box"));

  /** Where the pointer is, in pixels of the picture. */
  function point(event) {
    const frame = surface.getBoundingClientRect();
    const { width, height } = size();
    return [
      ((event.clientX - frame.left) / frame.width) * width,
      ((event.clientY - frame.top) / frame.height) * height,
    ];
  }

  function onDown(event) {
    if (drag !== null || !event.isPrimary || event.button !== 0) return;
    event.preventDefault(); // no text selection; the focus is set by hand
    surface.focus({ preventScroll: true });
    surface.setPointerCapture(event.pointerId);
    showMessage(); // what was said of an earlier click is over
    const { pointerId, clientX, clientY } = event;
    drag = { pointerId, clientX, clientY, start: point(event), before: box, drawn: false };
  }

  function onMove(event) {
    if (event.pointerId !== drag?.pointerId) return;
    const far = Math.hypot(event.clientX - drag.clientX, event.clientY - drag.clientY);
    const wanted = boxBetween(drag.start, point(event), size());
    if (wanted === null || (!drag.drawn && far < CLICK)) return;
    drag.drawn = true;
    showBox(wanted);
    sender.later(wanted);
  }

  function onUp(event) {
    if (event.pointerId !== drag?.pointerId) return;
    onMove(event);
    const { drawn } = drag;
    drag = null;
    if (drawn) sender.now(box);
    else message.textContent = NOT_A_BOX;
  }

  function giveUp() {
    if (drag === null) return;
    const { before, drawn, pointerId } = drag;
    drag = null;
    if (surface.hasPointerCapture(pointerId)) surface.releasePointerCapture(pointerId);
    showBox(before);
    if (drawn) sender.now(before);
  }

  function onKey(event) {
    if (event.key === "Escape") return giveUp();
    const direction = ARROWS[event.key];
    if (!direction || drag !== null || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    showMessage();
    const { width, height } = size();
    const step = Math.max(1, Math.round(Math.max(width, height) / 100));
    const change = event.shiftKey ? resizedBox : movedBox;
    showBox(change(box, direction.map((share) => share * step), size()));
    sender.later(box);
  }

  const ofSurface = {
    pointerdown: onDown,
    pointermove: onMove,
    pointerup: onUp,
    pointercancel: giveUp,
    lostpointercapture: giveUp,
    keydown: onKey,
  };
  const ofModel = {
    "change:picture": showPicture,
    "change:label": showPicture,
    "change:box": onBox,
    "change:message": showMessage,
  };
  for (const [name, react] of Object.entries(ofSurface)) surface.addEventListener(name, react);
  for (const [name, react] of Object.entries(ofModel)) model.on(name, react);
  showPicture();
  showMessage();
  return () => {
    sender.stop();
    for (const [name, react] of Object.entries(ofModel)) model.off(name, react);
    URL.revokeObjectURL(image.src);
  };
}

export default { render };
