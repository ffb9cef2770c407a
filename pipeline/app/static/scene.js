// A scene: load it, say what would be done with it, classify it, show its map.

import { ask, byId, bytes, duration, make, notesInto, Refused, say, send, takeFiles, tell } from "./dom.js";
import { mapPanel } from "./map.js";
import { pixelFields } from "./pixels.js";

const LOOK_AGAIN = 500; // milliseconds between two questions how far it is

export function sceneView(app) {
  const message = byId("scene-message"), work = byId("scene-work"), step = byId("scene-step");
  const bar = byId("scene-progress"), cancel = byId("scene-cancel"), look = byId("scene-look");
  const stride = byId("scene-stride"), form = byId("scene-form");
  const map = mapPanel(byId("scene-map"));
  const pixels = pixelFields(byId("scene-pixels"), { forScenes: true, onChange: () => key && describe() });
  let key = null, described = null, visit = 0, looks = 0, stop = null;

  /** Show that something is going on; `fraction` null for "who knows how long". */
  function working(text, fraction = null, onCancel = null) {
    work.hidden = false;
    if (step.textContent !== text) step.textContent = text;
    if (fraction === null) bar.removeAttribute("value");
    else bar.value = fraction;
    cancel.hidden = !onCancel;
    stop = onCancel;
  }

  function idle() {
    work.hidden = true;
    stop = null;
  }

  cancel.addEventListener("click", () => stop?.());

  /** Do the steps of loading a scene; a scene that is loaded meanwhile takes its place. */
  async function load(steps) {
    stop?.();
    const number = ++visit;
    key = described = null;
    say(message, "");
    look.hidden = true;
    map.hide();
    pixels.clear();
    try {
      const found = await steps(() => number !== visit);
      if (number !== visit) return;
      key = found;
      await describe();
    } catch (error) {
      if (number !== visit) return;
      idle();
      say(message, error.name === "AbortError" ? "Cancelled: the file was not sent." : error.message, error.name === "AbortError" ? "plain" : "bad");
    }
  }

  const loadFiles = (files) => load(async (outdated) => {
    const size = files.reduce((sum, file) => sum + file.size, 0);
    if (size > app.state.limits.scene) throw new Refused(`That is ${bytes(size)}, and the server takes ${bytes(app.state.limits.scene)} at most: start it with --max-upload, or with --root and the scene below it.`);
    const { key } = await tell("/api/scenes", {});
    const aborting = new AbortController();
    let sent = 0;
    for (const file of files) {
      const onProgress = (fraction) => !outdated() && working(`Sending ${file.name}, ${bytes(file.size)}`, (sent + fraction * file.size) / size, () => aborting.abort());
      onProgress(0);
      await send(`/api/scenes/${key}/files/${encodeURIComponent(file.name)}`, file, { onProgress, signal: aborting.signal });
      sent += file.size;
    }
    return key;
  });

  const loadExample = () => load(async () => {
    working("Drawing the made-up scene: some seconds");
    return (await tell("/api/scenes", { example: true })).key;
  });

  const loadPath = (path) => load(async () => {
    working(`Opening ${path}`);
    return (await tell("/api/scenes", { path })).key;
  });

  /** Ask what `info` says, and show it. */
  async function describe() {
    const number = visit, asked = ++looks; // a later question makes the answer to an earlier one void
    const outdated = () => number !== visit || asked !== looks;
    say(message, "");
    working("Looking at the scene");
    try {
      const given = await tell(`/api/scenes/${key}/look`, { ...pixels.read(), model: app.model() });
      if (outdated()) return;
      described = given;
      showDescription();
      map.showScene(given.label, given, `/api/scenes/${key}/picture?look=${given.look}`);
    } catch (error) {
      if (outdated()) return;
      described = null;
      map.hide();
      say(message, error.message);
      // What the pixels are can be stated, and may be all that was missing.
      byId("scene-name").textContent = "If the file says too little, say it here";
      byId("scene-plan").hidden = true;
      byId("scene-pixels").open = true;
      look.hidden = false;
    } finally {
      if (!outdated()) idle();
      byId("scene-start").disabled = !described;
    }
  }

  function showDescription() {
    byId("scene-name").textContent = described.label;
    byId("scene-description").replaceChildren(...Object.entries(described.description)
      .filter(([name]) => !["scene", "tiles", "map"].includes(name))
      .flatMap(([name, value]) => [make("dt", { textContent: name === "crs" ? "CRS" : name }), make("dd", { textContent: value })]));
    notesInto(byId("scene-notes"), described.notes);
    pixels.bands(described.bands);
    const before = stride.value;
    stride.replaceChildren(...described.strides.map((entry) =>
      make("option", { value: entry.stride, textContent: `${entry.metres} m (stride ${entry.stride})` })));
    if (described.strides.some((entry) => String(entry.stride) === before)) stride.value = before;
    showCost();
    look.hidden = byId("scene-plan").hidden = false;
  }

  function showCost() {
    const { tiles, rows, columns } = described.strides.find((entry) => String(entry.stride) === stride.value);
    byId("scene-cost").textContent = `${rows.toLocaleString("en")} × ${columns.toLocaleString("en")} cells from ${tiles.toLocaleString("en")} tiles`;
  }

  stride.addEventListener("change", showCost);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    say(message, "");
    byId("scene-start").disabled = true;
    try {
      const wishes = { ...pixels.read(), model: app.model(), stride: Number(stride.value), probabilities: byId("scene-probabilities").checked };
      await tell(`/api/scenes/${key}/run`, wishes);
      history.replaceState(null, "", `#scene/${key}`);
      await follow(key);
    } catch (error) {
      idle();
      say(message, error.message);
    } finally {
      byId("scene-start").disabled = !described;
    }
  });

  /** Watch a run to its end, and show its map. */
  async function follow(running) {
    const number = visit;
    const url = `/api/scenes/${running}/run`;
    while (number === visit) {
      const run = await ask(url);
      if (number !== visit) return;
      if (["done", "failed", "cancelled"].includes(run.state)) return finish(running, run);
      working(...progressOf(run), () => {
        cancel.disabled = true;
        ask(url, { method: "DELETE" }).catch(() => {}).finally(() => (cancel.disabled = false));
      });
      await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN));
    }
  }

  function progressOf(run) {
    if (run.state === "waiting") return [run.before === 1 ? "One scene is before yours: it starts by itself." : `${run.before} scenes are before yours: it starts by itself.`, null];
    if (run.state === "writing") return ["Writing the map", null];
    if (!run.total) return ["Reading the first pixels", null];
    const left = (run.seconds * (run.total - run.done)) / run.done;
    return [`Classifying: ${run.done.toLocaleString("en")} of ${run.total.toLocaleString("en")} tiles, about ${duration(left)} left`, run.done / run.total];
  }

  async function finish(running, run) {
    idle();
    if (run.state === "failed") return say(message, run.message);
    if (run.state === "cancelled") return say(message, "Cancelled: nothing was written.", "plain");
    await map.showMap(run.label, `scene=${running}`, `/api/scenes/${running}/picture`);
    if (map.panel.getBoundingClientRect().top > innerHeight * 0.6) map.panel.scrollIntoView({ block: "start", behavior: "smooth" });
  }

  byId("scene-example").addEventListener("click", loadExample);
  takeFiles(byId("scene-drop"), byId("scene-file"), loadFiles);

  return {
    loadPath,
    ready() {
      byId("scene-browse").hidden = !app.state.root;
      pixels.bands(app.card().bands);
    },
    modelChanged() {
      pixels.bands(app.card().bands);
      if (key) describe();
    },
    /** Go on watching a run after the page was loaded again. */
    async resume(running) {
      if (running === key) return;
      try {
        await ask(`/api/scenes/${running}/run`);
      } catch {
        history.replaceState(null, "", "#scene");
        return;
      }
      visit++;
      key = running;
      const going = follow(running);
      const given = await tell(`/api/scenes/${running}/look`, { model: app.model() }).catch(() => null);
      if (given && key === running) {
        described = given;
        showDescription();
      }
      await going.catch((error) => say(message, error.message));
    },
  };
}
