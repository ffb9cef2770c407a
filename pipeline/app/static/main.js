// The page: waits for the server, shows the view that the address names, and holds the chosen model.

import { byId, make, percent, request, showMessage } from "./dom.js";
import { folderView } from "./folder.js";
import { imageView } from "./image.js";
import { sceneView } from "./scene.js";

const model = byId("model");
let setLoaded;
const app = {
  state: null,
  loaded: new Promise((resolve) => (setLoaded = resolve)),
  model: () => model.value,
  card: () => app.state.models.find((entry) => entry.name === model.value),
};
app.image = imageView(app);
app.scene = sceneView(app);
app.folder = folderView(app);

/** Show the view that the address names: #image, #scene, #scene/key, #folder, #folder/path. */
function route() {
  if (location.hash === "#main") return; // the link that skips the header
  const [, name, rest] = location.hash.match(/^#(\w+)\/?(.*)$/) ?? [null, "image", ""];
  const wanted = byId(name)?.classList.contains("view") ? name : "image";
  for (const view of document.querySelectorAll(".view")) view.hidden = view.id !== wanted;
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.hash === `#${wanted}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${{ image: "Image", scene: "Scene", folder: "Folder" }[wanted]} · landcover`;
  if (!app.state) return;
  if (wanted === "folder" && app.state.root) app.folder.open(rest.split("/").map(decodeURIComponent).join("/"));
  if (wanted === "scene" && rest) app.scene.resume(rest);
}

/** Wait until the server has loaded its model. */
async function begin() {
  for (;;) {
    try {
      const state = await request("/api/state");
      if (state.ready) return ready(state);
    } catch (error) {
      showMessage(byId("loading"), error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, 400));
  }
}

function ready(state) {
  app.state = state;
  model.replaceChildren(...state.models.map(({ name, accuracy }) =>
    make("option", { value: name, textContent: accuracy ? `${name} (${percent(accuracy, 1)})` : name })));
  model.disabled = false;
  byId("folder-link").hidden = !state.root;
  byId("loading").hidden = true;
  document.documentElement.dataset.ready = "true";
  for (const label of document.querySelectorAll("[data-label]")) label.textContent = state.settings.labels[label.dataset.label];
  app.image.ready();
  app.scene.ready();
  setLoaded();
  route();
}

model.addEventListener("change", () => {
  app.image.modelChanged();
  app.scene.modelChanged();
});
addEventListener("hashchange", route);
// A file dropped outside of the drop zone must not replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
route();
begin();
