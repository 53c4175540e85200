// As much of a page and of a widget's model as the front end asks for, and a clock that is moved by
// hand. The surface lies at (10, 20) and shows each pixel of a picture of 100 x 50 as two pixels of
// the screen.
import widget, { boxBetween, movedBox, resizedBox, throttled } from "./box_picker.mjs";
let now = 0, timers = [];
globalThis.setTimeout = (run, wait) => timers.push({ run, due: now + wait, id: timers.length + 1 });
globalThis.clearTimeout = (id) => (timers = timers.map((timer) => timer.id === id ? {} : timer));
const pass = (ms) => {
  for (const end = now + ms; now < end; now++) {
    for (const timer of timers.filter(({ due }) => due === now)) timer.run();
  }
};
class Element {
  constructor() {
    this.children = []; this.attributes = {}; this.listeners = {}; this.captured = new Set();
    this.style = { setProperty: (name, value) => (this.style[name] = value) };
    this.classList = { toggle: (name, on) => (this.toggled = { [name]: on }) };
  }
  appendChild(node) { this.children.push(node); }
  setAttribute(name, value) { this.attributes[name] = value; }
  addEventListener(name, react) { this.listeners[name] = react; }
  getBoundingClientRect() { return { left: 10, top: 20, width: 200, height: 100 }; }
  focus() { this.focused = true; }
  setPointerCapture(id) { this.captured.add(id); }
  hasPointerCapture(id) { return this.captured.has(id); }
  releasePointerCapture(id) { this.captured.delete(id); }
  find(name) {
    if (this.className === name) return this;
    return this.children.map((child) => child.find(name)).find(Boolean);
  }
}
globalThis.document = { createElement: () => new Element() };
const revoked = [];
let pictures = 0;
URL.createObjectURL = () => `blob:${++pictures}`;
URL.revokeObjectURL = (url) => url && revoked.push(url);
const sent = [];
let reactions = [];
const tellAll = () => reactions.forEach(([, react]) => react());
const state = {
  picture: new DataView(new ArrayBuffer(4)), width: 100, height: 50, box: [10, 10, 40, 30],
  label: "drag a box", message: "said by the kernel", shown_width: 200, colour: "red",
};
const model = {
  get: (name) => state[name],
  set: (name, value) => (state[name] = value),
  save_changes: () => sent.push([...state.box]),
  on: (...pair) => reactions.push(pair),
  off: (...pair) => (reactions = reactions.filter((p) => p.some((part, i) => part !== pair[i]))),
};
const el = new Element();
const close = widget.render({ model, el });
const surface = el.find("box-picker-surface"), outline = el.find("box-picker-box");
const message = el.find("box-picker-message"), image = el.find("box-picker-picture");
const event = (name, x, y, more = {}) => {
  let kept = true;
  surface.listeners[name]({
    pointerId: 1, isPrimary: true, button: 0, clientX: 10 + 2 * x, clientY: 20 + 2 * y,
    preventDefault: () => (kept = false), stopPropagation: () => {}, ...more,
  });
  return kept;
};
const key = (name, more = {}) => event("keydown", 0, 0, { key: name, ...more });
const out = {};
