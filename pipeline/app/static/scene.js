// The scene view: load a scene, describe it, classify it, show its map.

import { acceptFiles, byId, bytes, duration, make, postJson, request, RequestError, showMessage, showNotes, upload } from "./dom.js";
import { mapPanel } from "./map.js";
import { pixelFields } from "./pixels.js";

const POLL_INTERVAL = 500; // milliseconds

export function sceneView(app) {
  const message = byId("scene-message"), work = byId("scene-work"), step = byId("scene-step");
  const bar = byId("scene-progress"), cancel = byId("scene-cancel"), details = byId("scene-details");
  const stride = byId("scene-stride"), form = byId("scene-form");
  const map = mapPanel(byId("scene-map"));
  const pixels = pixelFields(byId("scene-pixels"), { forScenes: true, onChange: () => key && describe() });
  let key = null, described = null, loads = 0, descriptions = 0, stop = null;

  /** Show progress; `fraction` is null if it is not known. */
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

  /** Load a scene by `steps`, which return its key; loading another one meanwhile replaces it. */
  async function load(steps) {
    await app.loaded;
    stop?.();
    const number = ++loads;
    key = described = null;
    showMessage(message, "");
    details.hidden = true;
    map.hide();
    pixels.clear();
    try {
      const found = await steps(() => number !== loads);
      if (number !== loads) return;
      key = found;
      await describe();
    } catch (error) {
      if (number !== loads) return;
      idle();
      showMessage(message, error.name === "AbortError" ? "Cancelled: the file was not uploaded." : error.message, error.name === "AbortError" ? "plain" : "bad");
    }
  }

  const loadFiles = (files) => load(async (outdated) => {
    const size = files.reduce((sum, file) => sum + file.size, 0);
    if (size > app.state.limits.scene) throw new RequestError(`That is ${bytes(size)}, but the server accepts ${bytes(app.state.limits.scene)} at most: start the app with a larger --max-upload, or with --root and the scene in that folder.`);
    const { key } = await postJson("/api/scenes", {});
    const aborting = new AbortController();
    let sent = 0;
    for (const file of files) {
      const onProgress = (fraction) => !outdated() && working(`Uploading ${file.name}, ${bytes(file.size)}`, (sent + fraction * file.size) / size, () => aborting.abort());
      onProgress(0);
      await upload(`/api/scenes/${key}/files/${encodeURIComponent(file.name)}`, file, { onProgress, signal: aborting.signal });
      sent += file.size;
    }
    return key;
  });

  const loadExample = () => load(async () => {
    working("Drawing the demo scene, which takes some seconds");
    return (await postJson("/api/scenes", { example: true })).key;
  });

  const loadPath = (path) => load(async () => {
    working(`Opening ${path}`);
    return (await postJson("/api/scenes", { path })).key;
  });

  /** Show what `landcover info` says about the scene. */
  async function describe() {
    const load = loads, number = ++descriptions; // answers to earlier requests are ignored
    const outdated = () => load !== loads || number !== descriptions;
    showMessage(message, "");
    working("Reading the scene");
    try {
      const received = await postJson(`/api/scenes/${key}/describe`, { ...pixels.read(), model: app.model() });
      if (outdated()) return;
      described = received;
      showDescription();
      map.showScene(received.label, received, `/api/scenes/${key}/picture?version=${received.version}`);
    } catch (error) {
      if (outdated()) return;
      described = null;
      map.hide();
      showMessage(message, error.message);
      // Perhaps only a setting is missing.
      byId("scene-name").textContent = "If the file does not say enough, state it here";
      byId("scene-plan").hidden = true;
      byId("scene-pixels").open = true;
      details.hidden = false;
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
    showNotes(byId("scene-notes"), described.notes);
    pixels.bands(described.bands);
    const before = stride.value;
    stride.replaceChildren(...described.strides.map((entry) =>
      make("option", { value: entry.stride, textContent: `${entry.stride} pixels: cells of ${entry.metres} m` })));
    if (described.strides.some((entry) => String(entry.stride) === before)) stride.value = before;
    showCost();
    details.hidden = byId("scene-plan").hidden = false;
  }

  function showCost() {
    const { tiles, rows, cols } = described.strides.find((entry) => String(entry.stride) === stride.value);
    byId("scene-cost").textContent = `${rows.toLocaleString("en")} × ${cols.toLocaleString("en")} cells from ${tiles.toLocaleString("en")} tiles`;
  }

  stride.addEventListener("change", showCost);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    showMessage(message, "");
    byId("scene-start").disabled = true;
    try {
      const settings = { ...pixels.read(), model: app.model(), stride: Number(stride.value), probabilities: byId("scene-probabilities").checked };
      await postJson(`/api/scenes/${key}/run`, settings);
      history.replaceState(null, "", `#scene/${key}`);
      await follow(key);
    } catch (error) {
      idle();
      showMessage(message, error.message);
    } finally {
      byId("scene-start").disabled = !described;
    }
  });

  /** Follow a run to its end, and show its map. */
  async function follow(running) {
    const number = loads;
    const url = `/api/scenes/${running}/run`;
    while (number === loads) {
      const run = await request(url);
      if (number !== loads) return;
      if (["done", "failed", "cancelled"].includes(run.state)) return finish(running, run);
      working(...progressOf(run), () => {
        cancel.disabled = true;
        request(url, { method: "DELETE" }).catch(() => {}).finally(() => (cancel.disabled = false));
      });
      await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL));
    }
  }

  function progressOf(run) {
    if (run.state === "waiting") return [run.ahead === 1 ? "Waiting: one scene is ahead of yours." : `Waiting: ${run.ahead} scenes are ahead of yours.`, null];
    if (run.state === "writing") return ["Writing the map", null];
    if (!run.total) return ["Reading the first pixels", null];
    const left = (run.seconds * (run.total - run.done)) / run.done;
    return [`Classifying: ${run.done.toLocaleString("en")} of ${run.total.toLocaleString("en")} tiles, about ${duration(left)} left`, run.done / run.total];
  }

  async function finish(running, run) {
    idle();
    if (run.state === "failed") return showMessage(message, run.message);
    if (run.state === "cancelled") return showMessage(message, "Cancelled: nothing was written.", "plain");
    await map.showMap(run.label, `scene=${running}`, `/api/scenes/${running}/picture`);
    if (map.panel.getBoundingClientRect().top > innerHeight * 0.6) map.panel.scrollIntoView({ block: "start", behavior: "smooth" });
  }

  byId("scene-example").addEventListener("click", loadExample);
  acceptFiles(byId("scene-drop"), byId("scene-file"), loadFiles);

  return {
    loadPath,
    ready() {
      byId("scene-browse").hidden = !app.state.root;
      pixels.offer(app.state.settings);
      pixels.bands(app.card().bands);
    },
    modelChanged() {
      pixels.bands(app.card().bands);
      if (key) describe();
    },
    /** Continue to follow a run after the page was reloaded. */
    async resume(running) {
      if (running === key) return;
      try {
        await request(`/api/scenes/${running}/run`);
      } catch {
        history.replaceState(null, "", "#scene");
        return;
      }
      loads++;
      key = running;
      const going = follow(running);
      const received = await postJson(`/api/scenes/${running}/describe`, { model: app.model() }).catch(() => null);
      if (received && key === running) {
        described = received;
        showDescription();
      }
      await going.catch((error) => showMessage(message, error.message));
    },
  };
}
