// One plane: fetches its slice, draws it with crosshair, letters and scale bar, and hears mouse, wheel and keys.

import { say } from "./texts.js";

const LINES = { axial: "#ff6b6b", coronal: "#51cf66", sagittal: "#ffd43b" };
const OTHERS = {
  // which planes the horizontal and the vertical line of a plane stand for, in radiological and neurological display
  axial: ["coronal", "sagittal"],
  coronal: ["axial", "sagittal"],
  sagittal: ["axial", "coronal"],
};

export class PlanePanel {
  // viewer: what holds the crosshair, the scene and the settings; see viewer.js
  constructor(viewer, plane) {
    this.viewer = viewer;
    this.plane = plane;
    this.zoom = 1;
    this.pan = [0, 0];
    this.bitmap = null;
    this.shownKey = "";
    this.busy = false;
    this.root = document.createElement("section");
    this.root.className = `vx-panel vx-${plane}`;
    this.title = say(`viewer.${plane}`);
    this.root.innerHTML =
      `<div class="vx-title"><span class="vx-name">${this.title}</span>` +
      `<input type="range" min="0" max="0" value="0" aria-label="${say("viewer.slice", { plane: this.title })}">` +
      `<output class="vx-index"></output></div><div class="vx-stagebox"><canvas tabindex="0" role="img"></canvas></div>`;
    this.slider = this.root.querySelector("input");
    this.output = this.root.querySelector("output");
    this.canvas = this.root.querySelector("canvas");
    this.slider.addEventListener("input", () => this.goTo(Number(this.slider.value)));
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  get geometry() {
    return this.viewer.scene.planes[this.plane];
  }

  get view() {
    return this.geometry.views[this.viewer.settings.convention];
  }

  // row, column and slice index of a voxel
  pixelOf(voxel) {
    const { axes, flips } = this.view;
    return axes.map((axis, i) => (flips[i] ? this.viewer.scene.shape[axis] - 1 - voxel[axis] : voxel[axis]));
  }

  // the voxel that a row, column and slice index show
  voxelAt(pixel) {
    const { axes, flips } = this.view;
    const voxel = [0, 0, 0];
    axes.forEach((axis, i) => (voxel[axis] = flips[i] ? this.viewer.scene.shape[axis] - 1 - pixel[i] : pixel[i]));
    return voxel;
  }

  get index() {
    return this.pixelOf(this.viewer.crosshair)[2];
  }

  goTo(index) {
    const [row, column] = this.pixelOf(this.viewer.crosshair);
    const last = this.geometry.count - 1;
    this.viewer.moveTo(this.voxelAt([row, column, Math.min(last, Math.max(0, index))]));
  }

  // Fetch what should be seen; the last wish wins, and none is asked for while one is on its way.
  async refresh() {
    const { count } = this.geometry;
    const index = this.index;
    this.slider.max = String(Math.max(0, count - 1));
    this.slider.disabled = count < 2;
    this.slider.value = String(index);
    this.output.textContent = `${index + 1} / ${count}`;
    const shown = { plane: this.title.toLowerCase(), number: index + 1, count, ...this.view.letters };
    this.canvas.setAttribute("aria-label", say("viewer.slice_title", shown));
    this.draw();
    if (this.busy) return;
    this.busy = true;
    try {
      for (;;) {
        const key = this.viewer.url(`slice/${this.plane}/${this.index}`);
        if (key === this.shownKey) return;
        const answer = await this.viewer.fetch(key);
        if (answer === null) return;
        this.bitmap = await createImageBitmap(await answer.blob());
        this.shownKey = key;
        this.canvas.dataset.shown = String(this.index);
        this.draw();
      }
    } finally {
      this.busy = false;
    }
  }

  // Where the slice lies on the canvas, in device pixels: x, y, width, height and pixels a unit.
  frame() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    const [rows, columns] = this.geometry.size;
    const [tall, wide] = this.geometry.pixel;
    const margin = 4 * ratio;
    const fit = Math.min((width - margin) / (columns * wide), (height - margin) / (rows * tall)) * this.zoom;
    const w = columns * wide * fit;
    const h = rows * tall * fit;
    const x = (width - w) / 2 + this.pan[0] * ratio;
    const y = (height - h) / 2 + this.pan[1] * ratio;
    return { width, height, x, y, w, h, fit, ratio, rows, columns };
  }

  draw() {
    if (!this.viewer.scene || this.canvas.clientWidth === 0) return;
    const f = this.frame();
    if (this.canvas.width !== f.width || this.canvas.height !== f.height) {
      this.canvas.width = f.width;
      this.canvas.height = f.height;
    }
    const pen = this.canvas.getContext("2d");
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, f.width, f.height);
    if (this.bitmap) {
      pen.imageSmoothingEnabled = this.viewer.settings.smooth;
      pen.imageSmoothingQuality = "high";
      pen.drawImage(this.bitmap, f.x, f.y, f.w, f.h);
    }
    this.drawBox(pen, f);
    if (this.viewer.settings.crosshair) this.drawCrosshair(pen, f);
    this.drawBrush(pen, f);
    this.drawLetters(pen, f);
    this.drawBar(pen, f);
  }

  drawCrosshair(pen, f) {
    const [row, column] = this.pixelOf(this.viewer.crosshair);
    const x = f.x + ((column + 0.5) / f.columns) * f.w;
    const y = f.y + ((row + 0.5) / f.rows) * f.h;
    const gap = 9 * f.ratio;
    const [across, down] = OTHERS[this.plane];
    pen.lineWidth = f.ratio;
    pen.globalAlpha = 0.8;
    const stroke = (colour, lines) => {
      pen.strokeStyle = colour;
      pen.beginPath();
      for (const [x0, y0, x1, y1] of lines) {
        pen.moveTo(Math.round(x0) + 0.5, Math.round(y0) + 0.5);
        pen.lineTo(Math.round(x1) + 0.5, Math.round(y1) + 0.5);
      }
      pen.stroke();
    };
    stroke(LINES[across], [[f.x, y, x - gap, y], [x + gap, y, f.x + f.w, y]]);
    stroke(LINES[down], [[x, f.y, x, y - gap], [x, y + gap, x, f.y + f.h]]);
    pen.globalAlpha = 1;
  }

  // the part that a quick look was at
  drawBox(pen, f) {
    const box = this.viewer.scene.mask && this.viewer.scene.mask.box;
    if (!box) return;
    const one = this.pixelOf(box[0]);
    const other = this.pixelOf(box[1].map((v) => v - 1));
    const low = one.map((v, i) => Math.min(v, other[i]));
    const high = one.map((v, i) => Math.max(v, other[i]) + 1);
    if (this.index < low[2] || this.index >= high[2]) return;
    pen.strokeStyle = "#fff";
    pen.lineWidth = f.ratio;
    pen.setLineDash([5 * f.ratio, 4 * f.ratio]);
    const sx = f.w / f.columns;
    const sy = f.h / f.rows;
    pen.strokeRect(f.x + low[1] * sx, f.y + low[0] * sy, (high[1] - low[1]) * sx, (high[0] - low[0]) * sy);
    pen.setLineDash([]);
  }

  // the size of the brush: under the mouse, else at the crosshair
  drawBrush(pen, f) {
    const { brush } = this.viewer;
    if (!brush?.tool) return;
    const [row, column] = this.pixelOf(this.pointed || this.viewer.crosshair);
    pen.strokeStyle = "#fff";
    pen.lineWidth = f.ratio;
    pen.beginPath();
    const [x, y] = [f.x + ((column + 0.5) / f.columns) * f.w, f.y + ((row + 0.5) / f.rows) * f.h];
    pen.arc(x, y, Math.max(brush.radius * f.fit, 2 * f.ratio), 0, 2 * Math.PI);
    pen.stroke();
  }

  drawLetters(pen, f) {
    const { top, bottom, left, right } = this.view.letters;
    const edge = 12 * f.ratio;
    const text = (letter, x, y) => this.text(pen, f, letter, x, y, 14, "center");
    text(top, f.width / 2, edge);
    text(bottom, f.width / 2, f.height - edge);
    text(left, edge, f.height / 2);
    text(right, f.width - edge, f.height / 2);
  }

  drawBar(pen, f) {
    // the longest step that takes no more than a quarter of the panel
    const steps = this.viewer.scene.bars.filter((length) => length * f.fit <= f.width / 4);
    if (!steps.length) return;
    const length = Math.max(...steps);
    const x = 12 * f.ratio;
    const y = f.height - 14 * f.ratio;
    pen.lineWidth = 3 * f.ratio;
    for (const [colour, grow] of [["#000", 2 * f.ratio], ["#fff", 0]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = 2 * f.ratio + grow;
      pen.beginPath();
      pen.moveTo(x - grow / 2, y);
      pen.lineTo(x + length * f.fit + grow / 2, y);
      pen.stroke();
    }
    const label = `${Number(length.toPrecision(3))} ${this.viewer.scene.unit || say("viewer.no_unit")}`;
    this.canvas.dataset.bar = label;
    this.text(pen, f, label, x, y - 11 * f.ratio, 12, "left");
  }

  text(pen, f, text, x, y, size, align) {
    pen.font = `600 ${size * f.ratio}px system-ui, sans-serif`;
    pen.textAlign = align;
    pen.textBaseline = "middle";
    pen.lineWidth = 3 * f.ratio;
    pen.strokeStyle = "#000";
    pen.strokeText(text, x, y);
    pen.fillStyle = "#fff";
    pen.fillText(text, x, y);
  }

  // the voxel under the mouse; null beside the slice
  under(event) {
    const f = this.frame();
    const column = Math.floor(((event.offsetX * f.ratio - f.x) / f.w) * f.columns);
    const row = Math.floor(((event.offsetY * f.ratio - f.y) / f.h) * f.rows);
    const inside = row >= 0 && row < f.rows && column >= 0 && column < f.columns;
    return inside ? this.voxelAt([row, column, this.index]) : null;
  }

  listen() {
    const { canvas } = this;
    let grip = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.viewer.scene) return;
      canvas.setPointerCapture(event.pointerId);
      canvas.focus({ preventScroll: true });
      const { low, high } = this.viewer.settings;
      const kind = event.button === 2 ? "window" : event.button === 1 || event.shiftKey ? "pan" : "cross";
      grip = { kind, x: event.offsetX, y: event.offsetY, pan: this.pan, low, high };
      if (kind === "cross") this.follow(event);
      const voxel = kind === "cross" && this.viewer.brush?.tool && this.under(event);
      if (voxel) {
        grip.kind = "paint";
        this.viewer.brush.begin(voxel);
      }
      if (kind !== "cross") event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.viewer.scene) return;
      const voxel = this.under(event);
      this.viewer.hover(voxel);
      this.point(voxel);
      if (!grip) return;
      if (grip.kind === "paint") return voxel && this.viewer.brush?.move(voxel);
      const dx = event.offsetX - grip.x;
      const dy = event.offsetY - grip.y;
      if (grip.kind === "cross") this.follow(event);
      else if (grip.kind === "pan") {
        this.pan = [grip.pan[0] + dx, grip.pan[1] + dy];
        this.draw();
      } else this.viewer.dragWindow(grip.low, grip.high, dx / canvas.clientWidth, dy / canvas.clientHeight);
    });
    const release = () => {
      this.viewer.brush?.end();
      grip = null;
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => {
      this.point(null);
      if (this.viewer.scene) this.viewer.hover(null);
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("dblclick", () => this.viewer.brush?.tool || this.viewer.enlarge(this.root));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  point(voxel) {
    this.pointed = voxel;
    if (this.viewer.brush?.tool) this.draw();
  }

  follow(event) {
    const voxel = this.under(event);
    if (voxel) this.viewer.moveTo(voxel);
  }

  wheel(event) {
    if (!this.viewer.scene) return;
    event.preventDefault();
    const step = Math.sign(event.deltaY);
    if (!event.ctrlKey) return this.goTo(this.index - step);
    const before = this.frame();
    const factor = step < 0 ? 1.2 : 1 / 1.2;
    this.zoom = Math.min(40, Math.max(0.5, this.zoom * factor));
    const after = this.frame();
    // what is under the mouse stays there
    const at = [event.offsetX * before.ratio, event.offsetY * before.ratio];
    const moved = [
      ((at[0] - before.x) / before.w) * after.w + after.x - at[0],
      ((at[1] - before.y) / before.h) * after.h + after.y - at[1],
    ];
    this.pan = [this.pan[0] - moved[0] / before.ratio, this.pan[1] - moved[1] / before.ratio];
    this.draw();
  }

  key(event) {
    if (!this.viewer.scene) return;
    if (this.viewer.brush?.key(event, this.viewer.crosshair)) return event.preventDefault();
    const moves = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };
    if (event.key in moves) this.goTo(this.index + moves[event.key]);
    else if (event.key === "Home") this.goTo(0);
    else if (event.key === "End") this.goTo(this.geometry.count - 1);
    else if (event.key === "+" || event.key === "-") {
      this.zoom = Math.min(40, Math.max(0.5, this.zoom * (event.key === "+" ? 1.2 : 1 / 1.2)));
      this.draw();
    } else if (event.key === "0") this.reset();
    else if (event.key === "Enter") this.viewer.enlarge(this.root);
    else return;
    event.preventDefault();
  }

  reset() {
    this.zoom = 1;
    this.pan = [0, 0];
    this.draw();
  }
}
