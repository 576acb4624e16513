// Draws the figures of the page, in the colours of its theme, and draws them again when theme or view changes.
(() => {
  "use strict";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const hover = matchMedia("(hover: hover)").matches;
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: hover ? "hover" : false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    // Or else plotly.js offers to upload the figure.
    showSendToCloud: false,
    plotlyServerURL: "",
  };

  // A copy of a figure in which every "var(--name)" is the value that the style sheet gives it now.
  function coloured(node, style) {
    if (typeof node === "string") {
      return node.startsWith("var(") ? style.getPropertyValue(node.slice(4, -1)).trim() : node;
    }
    if (Array.isArray(node)) return node.map((item) => coloured(item, style));
    if (node && typeof node === "object") {
      return Object.fromEntries(Object.entries(node).map(([key, item]) => [key, coloured(item, style)]));
    }
    return node;
  }

  const figures = [...document.querySelectorAll("figure.part")].map((panel) => ({
    plot: panel.querySelector(".plot"),
    buttons: [...panel.querySelectorAll(".views button")],
    views: JSON.parse(panel.querySelector("script").textContent),
    shown: 0,
  }));

  function draw(figure) {
    const { data, layout } = coloured(figure.views[figure.shown], getComputedStyle(root));
    layout.uirevision = figure.shown; // a new theme keeps the zoom, another view does not
    if (touch) layout.dragmode = false; // a finger on a figure scrolls the page
    if (root.classList.contains("print")) layout.width = figure.plot.clientWidth;
    try {
      Plotly.react(figure.plot, data, layout, config);
    } catch (error) {
      console.error(error); // the other figures are drawn all the same
    }
  }

  function show(theme) {
    root.dataset.theme = theme;
    figures.forEach(draw);
  }

  const ofSystem = () => (dark.matches ? "dark" : "light");
  figures.forEach((figure) => {
    figure.buttons.forEach((button, index) =>
      button.addEventListener("click", () => {
        figure.shown = index;
        figure.buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
        Plotly.purge(figure.plot); // or the axes keep the ticks of the view before
        draw(figure);
      })
    );
  });
  document.querySelector(".theme").addEventListener("click", () => show(root.dataset.theme === "dark" ? "light" : "dark"));
  dark.addEventListener("change", () => show(ofSystem()));

  let before;
  addEventListener("beforeprint", () => {
    const folded = [...document.querySelectorAll("details:not([open])")];
    before = { theme: root.dataset.theme, folded };
    folded.forEach((details) => (details.open = true));
    root.classList.add("print");
    show("light");
  });
  addEventListener("afterprint", () => {
    root.classList.remove("print");
    before.folded.forEach((details) => (details.open = false));
    show(before.theme);
  });

  show(ofSystem());
})();
