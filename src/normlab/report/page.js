"use strict";
// Without this script the page shows every section, and its tables; on paper too.
const sections = [...document.querySelectorAll("main > section")];

function show() {
  const target = document.getElementById(location.hash.slice(1));
  const section = target?.closest("main > section") ?? sections[0];
  for (const each of sections) each.hidden = each !== section;
  if (target) {
    target.scrollIntoView();
    section.querySelector("h1, h2").focus({preventScroll: true});
  }
}
addEventListener("hashchange", show);
addEventListener("beforeprint", () => sections.forEach((each) => { each.hidden = false; }));
addEventListener("afterprint", show);
show();

// Vega takes text and lines in the colour of the page, which the reader's scheme and paper decide.
const ink = {labelColor: "currentColor", titleColor: "currentColor"};
const line = {domainColor: "currentColor", tickColor: "currentColor", gridColor: "currentColor"};
const config = {
  background: "transparent",
  font: "system-ui, sans-serif",
  axis: {...ink, ...line, gridOpacity: 0.15, domainOpacity: 0.5, tickOpacity: 0.5, labelFontSize: 11, titleFontSize: 12},
  legend: {...ink, labelFontSize: 12},
  header: ink,
  title: {color: "currentColor", subtitleColor: "currentColor"},
  text: {color: "currentColor"},
  view: {stroke: null},
};

// Sections that are hidden have no width: all charts are as wide as the page's column, and drawn one by one.
const charts = [...document.querySelectorAll("figure .chart")];
let drawn = 0;

async function draw() {
  const width = sections.find((each) => !each.hidden).clientWidth, turn = ++drawn;
  config.axis.titleLimit = width - 60;
  for (const chart of charts) {
    const spec = JSON.parse(chart.parentElement.querySelector("script").textContent);
    if (spec.width === "container") Object.assign(spec, {width, autosize: {type: "fit-x", contains: "padding"}});
    for (const view of spec.vconcat ?? []) if (view.width > width - 80) view.width = width - 80;
    try {
      await vegaEmbed(chart, spec, {actions: false, ast: true, config, defaultStyle: false, renderer: "svg", tooltip: {disableDefaultStyle: true}});
    } catch (error) {
      chart.textContent = `This chart could not be drawn (${error.message}); its numbers stand below.`;
    }
    if (turn !== drawn) return;
    await new Promise((resolve) => setTimeout(resolve));
  }
}
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  draw();
});
draw();
