// The slider on the first page plays once: up, down, up, in less than five seconds, or until somebody takes it.
addEventListener("load", () => {
  const slider = document.querySelector(".first input[type=range]");
  if (!slider || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const last = Number(slider.max);
  let step = 0;
  const playing = setInterval(() => {
    step += 1;
    const place = step % (2 * last);
    slider.value = Math.min(place, 2 * last - place);
    slider.dispatchEvent(new Event("input"));
    if (step === 3 * last) clearInterval(playing);
  }, 200);
  for (const taken of ["pointerdown", "focus"]) slider.addEventListener(taken, () => clearInterval(playing));
});
