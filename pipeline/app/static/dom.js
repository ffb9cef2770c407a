// Elements, requests and number formats, which every part of the page uses.

/** Make an element: properties are set, `class`, `data-…`, `aria-…` and `role` as attributes; text is never HTML. */
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

/** A request that failed, with a sentence for the user. */
export class RequestError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Send a request; returns the parsed JSON, or the response itself for anything else. */
export async function request(url, options = {}) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError("The server does not answer. Is it still running?", 0);
  }
  if (!response.ok) throw new RequestError(await reason(response), response.status);
  const isJson = (response.headers.get("Content-Type") || "").startsWith("application/json");
  return isJson ? response.json() : response;
}

async function reason(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `The request failed (${response.status}).`;
  }
}

/** Send a JSON object. */
export const postJson = (url, content) =>
  request(url, { method: "POST", body: JSON.stringify(content), headers: { "Content-Type": "application/json" } });

/** Upload a file; `onProgress` gets the fraction that is sent, which `fetch` cannot report. */
export function upload(url, file, { method = "PUT", onProgress = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open(method, url);
    xhr.responseType = "json";
    xhr.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    xhr.onload = () =>
      xhr.status < 400
        ? resolve(xhr.response)
        : reject(new RequestError(xhr.response?.error || `The server refused the file (${xhr.status}).`, xhr.status));
    xhr.onerror = () => reject(new RequestError("The file could not be uploaded. Is the server still running?", 0));
    xhr.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal?.addEventListener("abort", () => xhr.abort());
    xhr.send(file);
  });
}

/** Show a message in its place, or hide it. */
export function showMessage(place, text, kind = "bad") {
  place.hidden = !text;
  place.textContent = text || "";
  place.className = `message ${kind}`;
}

/** Accept files that are chosen, or dropped on an element. */
export function acceptFiles(zone, input, onFiles) {
  input.addEventListener("change", () => {
    if (input.files.length) onFiles([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
  let depth = 0; // entering a child also leaves its parent
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

/** Show notes, warnings first. */
export function showNotes(list, notes) {
  const ordered = [...notes].sort((a, b) => (a.level === "info") - (b.level === "info"));
  list.replaceChildren(...ordered.map((note) =>
    make("li", { class: note.level },
      note.level === "warning" ? make("strong", { textContent: "Note: " }) : null,
      note.text)));
}

/** A fraction as a length in CSS. */
export const cssPercent = (fraction) => `${100 * fraction}%`;
export const percent = (fraction, digits = 0) => `${(100 * fraction).toFixed(digits)} %`;
export const probability = (value) => (value > 0.995 ? "> 99 %" : percent(value, value < 0.1 ? 1 : 0));
/** A class's name that may break between its words. */
export const breakableName = (name) => name.split(/(?<=[a-z])(?=[A-Z])/).flatMap((word, i) => (i ? [make("wbr"), word] : [word]));
export const hectares = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });

export function bytes(count) {
  if (count < 2 ** 20) return `${Math.max(1, Math.round(count / 1024)).toLocaleString("en")} KiB`;
  return `${(count / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 1 })} MiB`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
