// Stands among a panel's widgets, and does this to each that takes the focus.
function mend({ target }) {
  // JupyterLab takes arrows, Enter and letters for its cells, even in a list; here it leaves them alone.
  target.setAttribute("data-lm-suppress-shortcuts", "true");
  // What a slider is called stands beside it, and a screen reader would not say it.
  const words = target.closest(".widget-slider")?.querySelector(".widget-label");
  if (words) target.setAttribute("aria-label", words.textContent);
}

function render({ el }) {
  // Once it is in the page.
  setTimeout(() => el.closest(".widget-vbox")?.addEventListener("focusin", mend));
}

export default { render };
