// JupyterLab takes arrows, Enter and letters for its cells, even where a list or a slider has the focus.
// What is marked so keeps them. This stands among a panel's widgets and marks each that takes the focus.
const mark = ({ target }) => target.setAttribute("data-lm-suppress-shortcuts", "true");

function render({ el }) {
  // Once it is in the page.
  setTimeout(() => el.closest(".widget-vbox")?.addEventListener("focusin", mark));
}

export default { render };
