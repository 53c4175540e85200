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

// What opens the theme's columns on a narrow page is an icon in a label: keys press it as well.
for (const icon of document.querySelectorAll(".nav-overlay-icon .icon, .toc-overlay-icon .icon")) {
  icon.tabIndex = 0;
  icon.role = "button";
  icon.ariaLabel = icon.parentElement.control.ariaLabel;
  icon.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    icon.click();
  });
}
