// The settings that say what the pixels of an image or a scene are. Labels and choices come from the server.

import { make } from "./dom.js";

const COLORS = { B04: "red", B03: "green", B02: "blue" };

/**
 * Fields in a `details` element. `offer()` makes them of the server's settings, `bands()` sets which bands there are,
 * and `read()` gives what was stated, by the names of the options.
 */
export function pixelFields(place, { forScenes, onChange }) {
  const level = make("select");
  const offset = make("input", { type: "number", step: "any", placeholder: "detect" });
  const crs = make("input", { type: "text", placeholder: "EPSG:32633", autocomplete: "off", spellcheck: false });
  const gsd = make("input", { type: "number", min: 0.1, step: "any", placeholder: "metres on the ground" });
  const resolution = make("select");
  const numbers = make("div", { class: "band-numbers" });
  place.addEventListener("change", () => onChange());
  return {
    offer({ labels, levels, safe_resolutions: resolutions }) {
      const field = (option, input) => make("label", {}, make("span", { textContent: labels[option] }), input);
      level.replaceChildren(...levels.map(({ name, meaning }) => make("option", { value: name, textContent: `${name}: ${meaning}` })));
      resolution.replaceChildren(...resolutions.map((metres) => make("option", { value: metres, textContent: `${metres} m` })));
      place.append(
        make("p", { class: "soft", textContent: "What you state here overrides what the file says." }),
        make("div", { class: "fields" },
          field("level", level),
          field("offset", offset),
          make("div", { class: "bands", role: "group", "aria-label": labels.bands },
            make("span", {}, labels.bands, make("span", { class: "soft", textContent: ": the number of each in the file" })), numbers),
          forScenes ? field("assume_crs", crs) : null,
          field("assume_gsd", gsd),
          forScenes ? field("safe_resolution", resolution) : null));
    },
    bands(names) {
      if ([...numbers.querySelectorAll("input")].map((input) => input.name).join() === names.join()) return;
      numbers.replaceChildren(...names.map((name) =>
        make("label", {}, COLORS[name] ? `${COLORS[name]} ` : "", name, make("input", { type: "number", min: 1, step: 1, name, placeholder: "–" }))));
    },
    read() {
      const bands = {};
      for (const input of numbers.querySelectorAll("input")) if (input.value) bands[input.name] = Number(input.value);
      return {
        level: level.value,
        offset: offset.value,
        bands,
        assume_crs: crs.value.trim(),
        assume_gsd: gsd.value,
        safe_resolution: Number(resolution.value),
      };
    },
    clear() {
      level.selectedIndex = resolution.selectedIndex = 0;
      for (const input of [offset, crs, gsd, ...numbers.querySelectorAll("input")]) input.value = "";
    },
  };
}
