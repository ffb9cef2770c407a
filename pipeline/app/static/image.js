// The image view: load an image, show its class and the tile that the model saw.

import { acceptFiles, byId, bytes, cssPercent, make, probability, request, RequestError, showMessage, showNotes, upload } from "./dom.js";
import { pixelFields } from "./pixels.js";

export function imageView(app) {
  const message = byId("image-message"), result = byId("image-result");
  const fit = byId("image-fit"), frame = byId("image-frame"), picture = byId("image-picture");
  const pixels = pixelFields(byId("image-pixels"), { forScenes: false, onChange: () => file && classify() });
  let file = null, center = { x: 0.5, y: 0.5 }, answer = null, requests = 0;

  async function load(chosen) {
    await app.loaded;
    file = chosen;
    center = { x: 0.5, y: 0.5 };
    fit.querySelector("[value=part]").checked = true;
    await classify();
  }

  async function classify() {
    const number = ++requests; // answers to earlier requests are ignored
    showMessage(message, "");
    try {
      if (file.size > app.state.limits.image) throw new RequestError(`${file.name} is ${bytes(file.size)}: an image may have ${bytes(app.state.limits.image)} at most. Load it as a scene.`);
      result.setAttribute("aria-busy", "true");
      const settings = { ...pixels.read(), ...center, model: app.model(), fit: fit.querySelector("input:checked").value };
      const query = new URLSearchParams({ name: file.name, request: JSON.stringify(settings) });
      const received = await upload(`/api/image?${query}`, file, { method: "POST" });
      if (number === requests) show(received);
    } catch (error) {
      if (number !== requests) return;
      result.hidden = true;
      showMessage(message, error.message);
    } finally {
      if (number === requests) result.removeAttribute("aria-busy");
    }
  }

  function show(received) {
    answer = received;
    const best = received.probabilities.find((entry) => entry.name === received.class);
    byId("image-class").replaceChildren(make("i", { class: "swatch", style: { background: best.color } }), received.class);
    byId("image-class").dataset.class = received.class;
    const sentence = byId("image-sentence");
    sentence.textContent = received.sentence;
    sentence.className = `certainty ${received.certainty}`;
    byId("image-bars").replaceChildren(...[...received.probabilities]
      .sort((a, b) => b.probability - a.probability)
      .map((entry) => make("li", {},
        make("span", { class: "label", textContent: entry.name }),
        make("span", { class: "track" }, make("i", { style: { width: cssPercent(entry.probability), background: entry.color } })),
        make("span", { class: "number", textContent: probability(entry.probability) }))));
    showNotes(byId("image-notes"), received.notes);
    byId("image-name").textContent = received.name;
    byId("image-size").textContent = `${received.width.toLocaleString("en")} × ${received.height.toLocaleString("en")} pixels`;
    byId("image-seen").src = received.seen;
    picture.src = received.picture;
    picture.classList.toggle("pixelated", Math.max(received.width, received.height) <= 256);
    const { x, y, width, height } = received.frame;
    Object.assign(frame.style, { left: cssPercent(x), top: cssPercent(y), width: cssPercent(width), height: cssPercent(height) });
    frame.hidden = width === 1 && height === 1;
    const { tile } = app.card();
    fit.hidden = received.width === tile && received.height === tile;
    result.hidden = false;
  }

  /** Classify the part around a point, given as fractions of width and height. */
  function move(x, y) {
    if (fit.querySelector("input:checked").value !== "part") return;
    const half = { x: answer.frame.width / 2, y: answer.frame.height / 2 };
    const within = (value, margin) => (margin >= 0.5 ? 0.5 : Math.min(1 - margin, Math.max(margin, value)));
    center = { x: within(x, half.x), y: within(y, half.y) };
    classify();
  }

  picture.addEventListener("click", (event) => move(event.offsetX / picture.clientWidth, event.offsetY / picture.clientHeight));
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    move(center.x + (step[0] * answer.frame.width) / 4, center.y + (step[1] * answer.frame.height) / 4);
  });
  fit.addEventListener("change", () => classify());
  acceptFiles(byId("image-drop"), byId("image-file"), ([first]) => load(first));

  return {
    ready() {
      pixels.offer(app.state.settings);
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
    const response = await request(url);
    pixels.clear();
    await load(new File([await response.blob()], `${name}.jpg`));
  }
}
