// Elements and requests: the two things that every part of the page does.

/** Make an element: properties are set, `class`, `data-…`, `aria-…` and `role` as attributes; text is only ever text. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "style") Object.assign(element.style, value);
    else if (name === "class" || name === "for" || name === "role" || name === "scope" || /^(data|aria)-/.test(name)) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** What the server, or the network, says went wrong. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Ask the server; gives the parsed JSON, or the response itself for anything else. */
export async function ask(url, options = {}) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer: is it still running?", 0);
  }
  if (!response.ok) throw new Refused(await reason(response), response.status);
  const isJson = (response.headers.get("Content-Type") || "").startsWith("application/json");
  return isJson ? response.json() : response;
}

async function reason(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `The server could not do that (${response.status}).`;
  }
}

/** Send wishes as JSON. */
export const tell = (url, content, method = "POST") =>
  ask(url, { method, body: JSON.stringify(content), headers: { "Content-Type": "application/json" } });

/** Send a file; `onProgress` is told the sent fraction. `fetch` cannot say how far an upload is. */
export function send(url, file, { method = "PUT", onProgress = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, url);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () =>
      request.status < 400
        ? resolve(request.response)
        : reject(new Refused(request.response?.error || `The server refused the file (${request.status}).`, request.status));
    request.onerror = () => reject(new Refused("The file could not be sent: is the server still running?", 0));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

/** Show a message in its place, or none. */
export function say(place, text, kind = "bad") {
  place.hidden = !text;
  place.textContent = text || "";
  place.className = `message ${kind}`;
}

/** Let files be dropped on an element, as well as chosen. */
export function takeFiles(zone, input, onFiles) {
  input.addEventListener("change", () => {
    if (input.files.length) onFiles([...input.files]);
    input.value = ""; // the same file again is a choice, too
  });
  let depth = 0; // entering a child leaves its parent
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    zone.classList.toggle("over", depth > 0);
  };
  zone.addEventListener("dragenter", (event) => { event.preventDefault(); mark(1); });
  zone.addEventListener("dragleave", () => mark(-1));
  zone.addEventListener("dragover", (event) => event.preventDefault());
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    mark(0);
    if (event.dataTransfer.files.length) onFiles([...event.dataTransfer.files]);
  });
}

export function notesInto(list, notes) {
  const ordered = [...notes].sort((a, b) => (a.level === "info") - (b.level === "info"));
  list.replaceChildren(...ordered.map((note) =>
    make("li", { class: note.level },
      note.level === "warning" ? make("strong", { textContent: "Note: " }) : null,
      note.text)));
}

/** A fraction as a length in a style. */
export const share = (fraction) => `${100 * fraction}%`;
export const percent = (fraction, digits = 0) => `${(100 * fraction).toFixed(digits)} %`;
export const probability = (value) => (value > 0.995 ? "> 99 %" : percent(value, value < 0.1 ? 1 : 0));
/** A class's name that may be broken between its words. */
export const named = (name) => name.split(/(?<=[a-z])(?=[A-Z])/).flatMap((word, i) => (i ? [make("wbr"), word] : [word]));
export const hectares = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });

export function bytes(count) {
  if (count < 2 ** 20) return `${Math.max(1, Math.round(count / 1024)).toLocaleString("en")} KiB`;
  return `${(count / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 1 })} MiB`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
