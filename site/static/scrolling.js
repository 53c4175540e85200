// What is wider than its place scrolls, and so it must be reachable by the keyboard as well.
const reach = () => {
  for (const box of document.querySelectorAll("pre, .table-wrapper, .output, div.math, p:has(> img)")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
};
addEventListener("load", reach);
addEventListener("resize", reach);
document.addEventListener("toggle", reach, true); // a hint was opened
