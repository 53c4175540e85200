/* A line of words that a screen reader reads out when they change. */

export default {
  render({ model, el }) {
    el.setAttribute("role", "status");
    const tell = () => {
      el.textContent = model.get("message");
    };
    tell();
    model.on("change:message", tell);
    return () => model.off("change:message", tell);
  },
};
