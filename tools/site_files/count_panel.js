// The panel of parameter counts on the page of lesson 02. It computes nothing: every number it shows
// was computed by serial_lora_course.panels.counts.count_table when the site was built.
document.addEventListener("DOMContentLoaded", () => {
  const panel = document.querySelector(".count-panel");
  if (!panel) return;
  const data = JSON.parse(panel.querySelector("script").textContent);
  const names = ["rank", "width", "depth"];
  const sliders = names.map((name) => panel.querySelector(`[name=${name}]`));
  const model = panel.querySelector("select");
  const cells = panel.querySelectorAll("td");
  const chosen = () => sliders.map((slider, i) => data[names[i]][slider.value]);

  function show() {
    // No rank is larger than the width: it gives way, as in the notebook.
    while (!(chosen() in data.counts)) sliders[0].value -= 1;
    const numbers = chosen();
    sliders.forEach((slider, i) => {
      slider.setAttribute("aria-valuetext", numbers[i]);
      panel.querySelector(`output[for=${slider.id}]`).textContent = numbers[i];
    });
    const counts = data.counts[numbers].flat();
    cells.forEach((cell, i) => (cell.textContent = counts[i].toLocaleString("en")));
    const own = Object.keys(data.presets).find((name) => `${data.presets[name]}` === `${numbers}`);
    model.value = model.value !== "" && `${data.presets[model.value]}` === `${numbers}` ? model.value : own ?? "";
  }

  model.addEventListener("change", () => {
    const wanted = data.presets[model.value];
    if (wanted) sliders.forEach((slider, i) => (slider.value = data[names[i]].indexOf(wanted[i])));
    show();
  });
  sliders.forEach((slider) => slider.addEventListener("input", show));
  show();
});
