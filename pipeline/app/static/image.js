// One image: load it, show its class, and what the model was shown.

import { ask, byId, bytes, make, notesInto, probability, Refused, say, send, share, takeFiles } from "./dom.js";
import { pixelFields } from "./pixels.js";

export function imageView(app) {
  const message = byId("image-message"), result = byId("image-result");
  const fit = byId("image-fit"), frame = byId("image-frame"), picture = byId("image-picture");
  const pixels = pixelFields(byId("image-pixels"), { forScenes: false, onChange: () => file && classify() });
  let file = null, centre = { x: 0.5, y: 0.5 }, answer = null, asked = 0;

  async function load(chosen) {
    file = chosen;
    centre = { x: 0.5, y: 0.5 };
    fit.querySelector("[value=part]").checked = true;
    await classify();
  }

  async function classify() {
    const number = ++asked; // a later question makes the answer to an earlier one void
    say(message, "");
    try {
      if (file.size > app.state.limits.image) throw new Refused(`${file.name} is ${bytes(file.size)}: an image may have ${bytes(app.state.limits.image)}. Load it as a scene.`);
      result.setAttribute("aria-busy", "true");
      const wishes = { ...pixels.read(), ...centre, model: app.model(), fit: fit.querySelector("input:checked").value };
      const query = new URLSearchParams({ name: file.name, wishes: JSON.stringify(wishes) });
      const given = await send(`/api/image?${query}`, file, { method: "POST" });
      if (number === asked) show(given);
    } catch (error) {
      if (number !== asked) return;
      result.hidden = true;
      say(message, error.message);
    } finally {
      if (number === asked) result.removeAttribute("aria-busy");
    }
  }

  function show(given) {
    answer = given;
    const best = given.probabilities.find((entry) => entry.name === given.class);
    byId("image-class").replaceChildren(make("i", { class: "swatch", style: { background: best.color } }), given.class);
    byId("image-class").dataset.class = given.class;
    const sentence = byId("image-sentence");
    sentence.textContent = given.sentence;
    sentence.className = `certainty ${given.certainty}`;
    byId("image-bars").replaceChildren(...[...given.probabilities]
      .sort((a, b) => b.probability - a.probability)
      .map((entry) => make("li", {},
        make("span", { class: "label", textContent: entry.name }),
        make("span", { class: "track" }, make("i", { style: { width: share(entry.probability), background: entry.color } })),
        make("span", { class: "number", textContent: probability(entry.probability) }))));
    notesInto(byId("image-notes"), given.notes);
    byId("image-name").textContent = given.name;
    byId("image-size").textContent = `${given.width.toLocaleString("en")} × ${given.height.toLocaleString("en")} pixels`;
    byId("image-seen").src = given.seen;
    picture.src = given.picture;
    picture.classList.toggle("pixelated", Math.max(given.width, given.height) <= 256);
    const { x, y, width, height } = given.frame;
    Object.assign(frame.style, { left: share(x), top: share(y), width: share(width), height: share(height) });
    frame.hidden = width === 1 && height === 1;
    const { tile } = app.card();
    fit.hidden = given.width === tile && given.height === tile;
    result.hidden = false;
  }

  /** Look at the part around a place, given as fractions of width and height. */
  function move(x, y) {
    if (fit.querySelector("input:checked").value !== "part") return;
    const half = { x: answer.frame.width / 2, y: answer.frame.height / 2 };
    const within = (value, margin) => (margin >= 0.5 ? 0.5 : Math.min(1 - margin, Math.max(margin, value)));
    centre = { x: within(x, half.x), y: within(y, half.y) };
    classify();
  }

  picture.addEventListener("click", (event) => move(event.offsetX / picture.clientWidth, event.offsetY / picture.clientHeight));
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    move(centre.x + (step[0] * answer.frame.width) / 4, centre.y + (step[1] * answer.frame.height) / 4);
  });
  fit.addEventListener("change", () => classify());
  takeFiles(byId("image-drop"), byId("image-file"), ([first]) => load(first));

  return {
    ready() {
      pixels.bands(app.card().bands);
      const { tile, gsd } = app.card();
      document.querySelector("[data-tile]").textContent = `${tile} × ${tile} pixels of ${gsd} m`;
      byId("examples").replaceChildren(...app.state.examples.map(({ name, url }) =>
        make("li", {}, make("button", { type: "button", onclick: () => example(name, url) },
          make("img", { src: url, alt: "", width: 64, height: 64 }), name))));
    },
    modelChanged() {
      pixels.bands(app.card().bands);
      if (file) classify();
    },
  };

  async function example(name, url) {
    const response = await ask(url);
    pixels.clear();
    await load(new File([await response.blob()], `${name}.jpg`));
  }
}
