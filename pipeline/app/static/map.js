// A map and its panel: legend, opacity, zoom, the cell under the pointer, downloads.

import { breakableName, byId, duration, hectares, make, percent, request, showNotes } from "./dom.js";
import { Viewer } from "./viewer.js";

/** Add the panel to `place`; it is hidden until there is something to show. */
export function mapPanel(place) {
  const panel = byId("map-template").content.firstElementChild.cloneNode(true);
  place.replaceChildren(panel);
  panel.hidden = true;
  const find = (selector) => panel.querySelector(selector);
  const canvas = find("canvas"), readout = find(".readout"), hint = find(".hint"), legend = find("tbody");
  const slider = find("input[type=range]"), side = find(".side");
  let map = null, shown = 0;
  const viewer = new Viewer(canvas, showCell);

  slider.addEventListener("input", () => {
    find("output").textContent = `${slider.value} %`;
    viewer.setOpacity(slider.value / 100);
  });
  panel.addEventListener("click", (event) => {
    const way = event.target.dataset?.zoom;
    if (way === "fit") viewer.fit();
    else if (way) viewer.zoom(way === "in" ? 1.6 : 1 / 1.6);
  });

  /** Show the class and place of a cell. */
  function showCell(cell) {
    if (!cell || !map) {
      if (!readout.contains(hint)) readout.replaceChildren(hint);
      return;
    }
    const { row, column, id, confidence } = cell;
    if (readout.dataset.row === String(row) && readout.dataset.column === String(column) && !readout.contains(hint)) return;
    Object.assign(readout.dataset, { row, column, id, confidence: confidence ?? "" });
    const entry = map.classes.find((candidate) => candidate.id === id);
    const x = map.origin[0] + (column + 0.5) * map.cell_size[0], y = map.origin[1] + (row + 0.5) * map.cell_size[1];
    const ground = map.crs ? `${Math.round(x)}, ${Math.round(y)} in ${map.crs}` : "no coordinate system";
    readout.replaceChildren(
      id === 0 ? make("b", { textContent: "No data" })
        : make("b", {}, make("i", { class: "swatch", style: { background: entry.color } }), entry.name),
      confidence === null ? "" : make("span", { textContent: `${confidence} % sure` }),
      make("span", { class: "soft", textContent: `row ${row + 1}, column ${column + 1} · ${ground}` }));
  }

  function fillLegend() {
    const present = map.classes.filter((entry) => entry.id !== 0).sort((a, b) => b.hectares - a.hectares);
    const empty = map.classes.find((entry) => entry.id === 0);
    legend.replaceChildren(
      ...present.map((entry) => make("tr", { class: entry.hectares ? "" : "absent" },
        make("th", { scope: "row" }, make("button", { type: "button", "aria-pressed": "false", onclick: (event) => isolate(event.currentTarget, entry.id) },
          make("i", { class: "swatch", style: { background: entry.color } }), make("span", {}, ...breakableName(entry.name)))),
        make("td", { textContent: hectares(entry.hectares) }),
        make("td", { textContent: percent((entry.share ?? 0) / 100, 1) }))),
      ...(empty?.hectares ? [make("tr", {},
        make("th", { scope: "row" }, make("span", { class: "row" }, make("i", { class: "swatch none" }), "no data")),
        make("td", { textContent: hectares(empty.hectares) }), make("td", {}))] : []));
  }

  /** Show one class only, or all of them again. */
  function isolate(button, id) {
    const pressed = button.getAttribute("aria-pressed") === "true";
    for (const other of legend.querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", String(!pressed));
    legend.classList.toggle("isolated", !pressed);
    viewer.isolate(pressed ? null : id);
  }

  /** Fetch the picture and draw it below the map; if that fails, the map is shown without it. */
  async function fetchPicture(url, number) {
    panel.classList.add("drawing");
    try {
      const response = await request(url);
      const picture = await createImageBitmap(await response.blob());
      if (number === shown) viewer.setPicture(picture);
    } catch (error) {
      console.info(error.message);
    } finally {
      if (number === shown) panel.classList.remove("drawing");
    }
  }

  return {
    panel,
    hide() {
      shown++;
      panel.hidden = true;
    },
    /** Show a scene that has no map yet. */
    showScene(title, scene, pictureUrl) {
      shown++;
      map = null;
      find("h2").textContent = title;
      find(".summary").textContent = "";
      side.hidden = readout.hidden = true;
      panel.hidden = false;
      canvas.setAttribute("aria-label", `Picture of ${title}`);
      viewer.showScene(scene.width, scene.height);
      fetchPicture(pictureUrl, shown);
    },
    /** Show a finished map; `query` says which. */
    async showMap(title, query, pictureUrl, focus = true) {
      const number = ++shown;
      const [described, response] = await Promise.all([request(`/api/map?${query}`), request(`/api/cells?${query}`)]);
      const cells = new Uint8Array(await response.arrayBuffer());
      if (number !== shown) return;
      map = described;
      find("h2").textContent = title;
      find(".summary").textContent = `${map.rows} × ${map.cols} cells of ${Math.abs(map.cell_size[0])} m · ${map.tiles.toLocaleString("en")} tiles in ${duration(map.seconds)} · ${map.model}`;
      showNotes(find(".notes"), map.notes.filter((note) => note.level === "warning"));
      fillLegend();
      legend.classList.remove("isolated");
      find(".download").href = `/api/outputs.zip?${query}`;
      side.hidden = readout.hidden = panel.hidden = false;
      canvas.setAttribute("aria-label", `Land-cover map of ${title}: arrow keys choose a cell, plus and minus zoom`);
      viewer.showMap(map, cells);
      viewer.setOpacity(slider.value / 100);
      showCell(null);
      panel.dataset.ready = query;
      if (focus) canvas.focus({ preventScroll: true });
      await fetchPicture(pictureUrl, number);
    },
  };
}
