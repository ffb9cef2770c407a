// The folder view: scenes to classify, finished maps and reports of batches in the served folder.

import { byId, bytes, make, request, showMessage } from "./dom.js";
import { mapPanel } from "./map.js";

export function folderView(app) {
  const message = byId("folder-message"), list = byId("folder-list"), report = byId("folder-report");
  const map = mapPanel(byId("folder-map"));
  let here = null;

  const address = (path) => `#folder/${path.split("/").map(encodeURIComponent).join("/")}`;
  const join = (path, name) => (path ? `${path}/${name}` : name);

  async function open(path) {
    if (path === here) return;
    here = path;
    showMessage(message, "");
    map.hide();
    report.replaceChildren();
    try {
      const listing = await request(`/api/folder?${new URLSearchParams({ path })}`);
      if (path === here) show(listing);
    } catch (error) {
      list.replaceChildren();
      showMessage(message, error.message);
    }
  }

  function show(listing) {
    const parts = listing.path ? listing.path.split("/") : [];
    byId("folder-path").replaceChildren(
      ...["all", ...parts].flatMap((name, i) => {
        const last = i === parts.length;
        const link = make("a", { href: address(parts.slice(0, i).join("/")), textContent: name });
        if (last) link.setAttribute("aria-current", "location");
        return last ? [link] : [link, make("span", { "aria-hidden": "true", textContent: "/" })];
      }));
    const group = (title, entries) => (entries.length ? [make("h2", { textContent: title }), make("ul", { class: "entries" }, ...entries)] : []);
    const entry = (kind, control, detail = "") => make("li", { class: kind }, control, make("span", { class: "soft", textContent: detail }));
    const empty = !(listing.folders.length + listing.scenes.length + listing.maps.length) && !listing.report;
    list.replaceChildren(
      ...(listing.report ? [make("button", { type: "button", class: "button primary", textContent: "Show the report of the batch", onclick: () => showReport(listing.report) })] : []),
      ...group("Maps", listing.maps.map(({ name, path }) => entry("a-map", make("button", { type: "button", textContent: name, onclick: (event) => showMap(name, path, event.currentTarget) })))),
      ...group("Folders", listing.folders.map((name) => entry("a-folder", make("a", { href: address(join(listing.path, name)), textContent: name })))),
      ...group("Scenes", [
        ...(listing.is_scene && listing.scenes.length > 1 ? [entry("a-scene", make("button", { type: "button", textContent: "All bands in this folder, as one scene", onclick: () => toScene(listing.path) }))] : []),
        ...listing.scenes.map(({ name, path, bytes: size }) => entry("a-scene", make("button", { type: "button", textContent: name, onclick: () => toScene(path) }), size === null ? "" : bytes(size))),
      ]),
      empty ? make("p", { class: "soft", textContent: "There are no scenes, maps or folders here." }) : "",
      listing.left_out ? make("p", { class: "soft", textContent: `and ${listing.left_out.toLocaleString("en")} more, not listed` }) : "");
  }

  function toScene(path) {
    location.hash = "#scene";
    app.scene.loadPath(path);
  }

  async function showMap(name, path, button) {
    for (const other of list.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
    button.setAttribute("aria-current", "true");
    report.replaceChildren();
    showMessage(message, "");
    const query = new URLSearchParams({ path }).toString();
    try {
      await map.showMap(name, query, `/api/map-picture?${query}`);
      map.panel.scrollIntoView({ block: "nearest", behavior: "smooth" });
    } catch (error) {
      map.hide();
      showMessage(message, error.message);
    }
  }

  function showReport(path) {
    map.hide();
    const url = `/files/${path.split("/").map(encodeURIComponent).join("/")}`;
    const frame = make("iframe", { src: url, title: "Report of the batch" });
    frame.setAttribute("sandbox", "allow-downloads"); // its author is not known
    report.replaceChildren(
      make("p", {}, make("a", { href: url, target: "_blank", rel: "noopener", textContent: "Open the report in a new tab" })),
      frame);
  }

  return { open };
}
