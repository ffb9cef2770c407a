// A map over a picture of its scene, on a canvas: pan, zoom, and choose cells.

const NO_CONFIDENCE = 255;
const DRAG_THRESHOLD = 5; // pixels: a tap moves a little, too

/**
 * A map on a canvas. Positions are in ground pixels of the scene, from its upper left corner; `view` maps them to
 * the canvas: x · scale + left. `onCell` is called with the cell under the pointer, or null.
 */
export class Viewer {
  constructor(canvas, onCell) {
    this.canvas = canvas;
    this.onCell = onCell;
    this.opacity = 0.6;
    this.map = this.cells = this.picture = this.chosen = this.isolated = null;
    this.view = { scale: 1, left: 0, top: 0 };
    this.fitted = true;
    this.pointers = new Map();
    this.#listen();
    new ResizeObserver(() => this.#resized()).observe(canvas);
  }

  /** Show a scene of `width` x `height` ground pixels, without a map. */
  showScene(width, height) {
    this.map = { width, height };
    this.cells = this.picture = this.chosen = this.isolated = null;
    this.#setShape();
  }

  /** Show a map; `cells` has a byte a cell for its class, then a byte a cell for its confidence. */
  showMap(map, cells) {
    this.map = map;
    this.cells = cells;
    this.chosen = this.isolated = null;
    this.#paint();
    this.#setShape();
  }

  /** Draw the picture of the whole scene below the map. */
  setPicture(picture) {
    this.picture = picture;
    this.draw();
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    this.draw();
  }

  /** Show one class only, or all of them for null. */
  isolate(id) {
    this.isolated = id;
    this.#paint();
    this.draw();
  }

  /** Return a cell's class and confidence, null outside of the map. */
  cell(row, column) {
    const { rows, cols } = this.map;
    if (!this.cells || row < 0 || column < 0 || row >= rows || column >= cols) return null;
    const at = row * cols + column, confidence = this.cells[rows * cols + at];
    return { row, column, id: this.cells[at], confidence: confidence === NO_CONFIDENCE ? null : confidence };
  }

  /** Give the canvas the aspect ratio of what it shows, within limits. */
  #setShape() {
    this.canvas.style.aspectRatio = Math.min(2.2, Math.max(0.8, this.map.width / this.map.height));
    this.fit();
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!this.map || !width) return;
    const scale = Math.min(width / this.map.width, height / this.map.height);
    this.view = { scale, left: (width - this.map.width * scale) / 2, top: (height - this.map.height * scale) / 2 };
    this.fitted = true;
    this.draw();
  }

  /** Zoom by a factor around a point on the canvas, its center by default. */
  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    if (!this.map) return;
    const { view, map } = this;
    const smallest = 0.5 * Math.min(this.canvas.clientWidth / map.width, this.canvas.clientHeight / map.height);
    const scale = Math.min(16, Math.max(smallest, view.scale * factor));
    view.left = x - ((x - view.left) * scale) / view.scale;
    view.top = y - ((y - view.top) * scale) / view.scale;
    view.scale = scale;
    this.#moved();
  }

  pan(x, y) {
    this.view.left += x;
    this.view.top += y;
    this.#moved();
  }

  #moved() {
    const { view, map, canvas } = this, margin = 40; // pixels of the map that stay visible
    const within = (start, length, room) => Math.min(room - margin, Math.max(margin - length, start));
    view.left = within(view.left, map.width * view.scale, canvas.clientWidth);
    view.top = within(view.top, map.height * view.scale, canvas.clientHeight);
    this.fitted = false;
    this.draw();
  }

  #resized() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    if (this.fitted) this.fit();
    else this.draw();
  }

  /** Paint the cells, one pixel each, on a canvas of their own. */
  #paint() {
    if (!this.cells) return;
    const { rows, cols, classes } = this.map;
    const colors = new Uint32Array(256); // ABGR
    for (const { id, color } of classes) {
      if (id === 0) continue;
      const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
      const alpha = this.isolated === null || this.isolated === id ? 255 : 0;
      colors[id] = ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    }
    this.painted ??= document.createElement("canvas");
    Object.assign(this.painted, { width: cols, height: rows });
    const context = this.painted.getContext("2d"), image = context.createImageData(cols, rows);
    const out = new Uint32Array(image.data.buffer);
    for (let i = 0; i < out.length; i++) out[i] = colors[this.cells[i]];
    context.putImageData(image, 0, 0);
  }

  /** Draw before the next frame, once for any number of calls. */
  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#draw();
    });
  }

  #draw() {
    const { canvas, view, map } = this, context = canvas.getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!map) return;
    canvas.style.touchAction = this.fitted ? "pan-y" : "none"; // with the whole map in view, a finger scrolls the page
    context.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.left, ratio * view.top);
    context.save();
    context.beginPath();
    context.rect(0, 0, map.width, map.height); // cells beyond the scene's edge are padding
    context.clip();
    context.fillStyle = getComputedStyle(canvas).getPropertyValue("--ground");
    context.fillRect(0, 0, map.width, map.height);
    if (this.picture) {
      context.imageSmoothingEnabled = (view.scale * map.width) / this.picture.width < 3;
      context.drawImage(this.picture, 0, 0, map.width, map.height);
    }
    if (this.cells) {
      context.globalAlpha = this.opacity;
      context.imageSmoothingEnabled = false;
      context.drawImage(this.painted, 0, 0, map.cols * map.stride, map.rows * map.stride);
    }
    context.restore();
    if (this.chosen) this.#outline(context);
  }

  #outline(context) {
    const { row, column } = this.chosen, { stride } = this.map;
    for (const [color, width] of [["#fff", 4], ["#000", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = width / this.view.scale;
      context.strokeRect(column * stride, row * stride, stride, stride);
    }
  }

  /** Choose a cell, and pan to it if it is out of view. */
  choose(row, column) {
    const cell = this.cell(row, column);
    if (!cell) return;
    this.chosen = cell;
    const { scale, left, top } = this.view, { stride } = this.map, { clientWidth, clientHeight } = this.canvas;
    const x = (column + 0.5) * stride * scale + left, y = (row + 0.5) * stride * scale + top;
    if (x < 0 || y < 0 || x > clientWidth || y > clientHeight) this.pan(clientWidth / 2 - x, clientHeight / 2 - y);
    this.draw();
    this.onCell(cell);
  }

  #cellAt(x, y) {
    if (!this.cells) return null;
    const { scale, left, top } = this.view, { stride, width, height } = this.map;
    const ground = [(x - left) / scale, (y - top) / scale];
    if (ground[0] < 0 || ground[1] < 0 || ground[0] >= width || ground[1] >= height) return null;
    return this.cell(Math.floor(ground[1] / stride), Math.floor(ground[0] / stride));
  }

  #listen() {
    const { canvas, pointers } = this;
    let began = null, dragged = false;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { x, y } = place(event), pixels = event.deltaMode ? 33 : 1; // lines, in some browsers
      this.zoom(Math.exp(-Math.max(-100, Math.min(100, event.deltaY * pixels)) / 300), x, y);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, place(event));
      if (pointers.size === 1) [began, dragged] = [place(event), false];
      else dragged = true;
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = place(event), before = pointers.get(event.pointerId);
      if (!before) {
        this.onCell(this.#cellAt(now.x, now.y) ?? this.chosen);
        return;
      }
      const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
      if (other) {
        const distance = (a) => Math.max(1, Math.hypot(a.x - other.x, a.y - other.y));
        this.zoom(distance(now) / distance(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
        this.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
      } else if (dragged || Math.hypot(now.x - began.x, now.y - began.y) > DRAG_THRESHOLD) {
        dragged = true;
        this.pan(now.x - before.x, now.y - before.y);
      }
      pointers.set(event.pointerId, now);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => {
        pointers.delete(event.pointerId);
        if (end === "pointercancel" || dragged) return;
        const { x, y } = place(event), cell = this.#cellAt(x, y);
        if (cell) this.choose(cell.row, cell.column);
      });
    }
    canvas.addEventListener("pointerleave", () => this.onCell(this.chosen));
    canvas.addEventListener("dblclick", (event) => {
      const { x, y } = place(event);
      this.zoom(event.shiftKey ? 0.5 : 2, x, y);
    });
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    if (!this.map || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (step && event.shiftKey) this.pan(-60 * step[1], -60 * step[0]);
    else if (step && this.cells) {
      const { rows, cols } = this.map;
      const from = this.chosen ?? { row: Math.floor(rows / 2) - step[0], column: Math.floor(cols / 2) - step[1] };
      this.choose(from.row + step[0], from.column + step[1]);
    } else if (event.key === "+" || event.key === "=") this.zoom(1.5);
    else if (event.key === "-") this.zoom(1 / 1.5);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }
}
