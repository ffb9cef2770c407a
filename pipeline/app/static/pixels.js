// What a visitor may state about the pixels of an image or a scene: the options of the command line.

import { make } from "./dom.js";

const LEVELS = [
  ["auto", "find out"],
  ["l1c", "Level-1C, top of atmosphere"],
  ["l2a", "Level-2A, surface"],
  ["tci", "ESA’s true-colour image"],
  ["rgb8", "8-bit colours as the model’s"],
];

/** Fill a `details` element with the fields; `read()` gives what was stated, `bands()` sets which bands there are. */
export function pixelFields(place, { forScenes, onChange }) {
  const level = make("select", { name: "level" }, ...LEVELS.map(([value, text]) => make("option", { value, textContent: text })));
  const offset = make("input", { type: "number", step: 1, placeholder: "find out" });
  const crs = make("input", { type: "text", placeholder: "EPSG:32633", autocomplete: "off", spellcheck: false });
  const gsd = make("input", { type: "number", min: 0.1, step: "any", placeholder: "metres" });
  const resolution = make("select", {}, ...[10, 20, 60].map((metres) => make("option", { value: metres, textContent: `${metres} m` })));
  const numbers = make("div", { class: "band-numbers" });
  const field = (text, option, input) => make("label", {}, make("span", {}, text, " ", make("code", { textContent: option })), input);
  place.append(
    make("p", { class: "soft", textContent: "What you state beats what was found. The names beside are the command line’s, which messages use." }),
    make("div", { class: "fields" },
      field("Level", "--level", level),
      field("Offset", "--offset", offset),
      make("div", { class: "bands", role: "group", "aria-label": "Bands" }, make("span", {}, "Number of each band in the file ", make("code", { textContent: "--bands" })), numbers),
      forScenes ? field("Coordinate system", "--assume-crs", crs) : null,
      field("Pixel size on the ground", "--assume-gsd", gsd),
      forScenes ? field("Files of a SAFE product", "--safe-resolution", resolution) : null));
  place.addEventListener("change", () => onChange());
  return {
    bands(names) {
      if ([...numbers.querySelectorAll("input")].map((input) => input.name).join() === names.join()) return;
      const colours = { B04: "red", B03: "green", B02: "blue" };
      numbers.replaceChildren(...names.map((name) =>
        make("label", {}, colours[name] ? `${colours[name]} ` : "", name, make("input", { type: "number", min: 1, step: 1, name, placeholder: "–" }))));
    },
    read() {
      const bands = {};
      for (const input of numbers.querySelectorAll("input")) if (input.value) bands[input.name] = Number(input.value);
      return { level: level.value, offset: offset.value, crs: crs.value.trim(), gsd: gsd.value, resolution: Number(resolution.value), bands };
    },
    clear() {
      level.value = "auto";
      resolution.value = "10";
      for (const input of [offset, crs, gsd, ...numbers.querySelectorAll("input")]) input.value = "";
    },
  };
}
