// The tools that correct the mask: brush and eraser with a radius, undo, downloads. Strokes go to the server, in parts,
// one at a time and in order.

import { say } from "./texts.js";

const MOST_POINTS = 64; // of a part
const SURFACE_MS = 800; // without a stroke, until the surfaces are made anew

export class Brush {
  // viewer: see viewer.js; kept: {tool, value, radius}, which outlives this element
  constructor(viewer, kept) {
    this.viewer = viewer;
    this.kept = kept;
    this.parts = [];
    this.last = null;
    this.choices = new Map();
    this.root = document.createElement("div");
    this.root.className = "vx-tools vx-brush";
    this.root.setAttribute("role", "toolbar");
    this.root.setAttribute("aria-label", say("viewer.brush_tools"));
    const unit = viewer.scene.unit || say("viewer.no_unit");
    const base = `session/${viewer.scene.id}/corrected`;
    this.root.innerHTML = `
      <button type="button" name="brush" title="${say("viewer.brush_title")}">${say("viewer.brush")}</button>
      <button type="button" name="eraser" title="${say("viewer.eraser_title")}">${say("viewer.eraser")}</button>
      <label title="${say("viewer.radius_title")}">${say("viewer.radius")}
        <input type="number" name="radius" min="0" step="any"> <span class="vx-unit"></span></label>
      <button type="button" name="undo" title="${say("viewer.undo_title")}">${say("viewer.undo")}</button>
      <a class="vx-corrected" href="${base}/mask" download>${say("viewer.corrected_mask")}</a>
      <a class="vx-corrected" href="${base}/report" download>${say("viewer.corrected_report")}</a>
      <button type="button" name="train" title="${say("viewer.train_title")}">${say("viewer.train")}</button>
      <output class="vx-kept"></output>`;
    this.root.querySelector(".vx-unit").textContent = unit;
    const { mask } = viewer.scene;
    if (!mask.labels.some((label) => label.value === kept.value)) kept.value = mask.labels[0]?.value ?? 0;
    this.part("train").hidden = !mask.trains;
    this.part("brush").addEventListener("click", () => this.take("brush"));
    this.part("eraser").addEventListener("click", () => this.take("eraser"));
    this.part("radius").addEventListener("input", (e) => e.target.value !== "" && this.set({ radius: Number(e.target.value) }));
    this.part("undo").addEventListener("click", () => this.undo());
    this.part("train").addEventListener("click", () => this.train());
    this.show();
  }

  get tool() {
    return this.kept.tool;
  }

  get radius() {
    return Math.max(0, this.kept.radius);
  }

  part(name) {
    return this.root.querySelector(`[name="${name}"]`);
  }

  show() {
    for (const name of ["brush", "eraser"]) this.part(name).setAttribute("aria-pressed", String(this.tool === name));
    this.choices.forEach((button, value) => button.setAttribute("aria-pressed", String(this.kept.value === value)));
    const radius = this.part("radius");
    if (Number(radius.value) !== this.kept.radius || radius.value === "") radius.value = String(this.kept.radius);
    const { mask } = this.viewer.scene;
    this.root.querySelectorAll(".vx-corrected").forEach((link) => (link.hidden = !mask.corrected));
  }

  set(changes) {
    Object.assign(this.kept, changes);
    this.show();
    this.viewer.panels.forEach((panel) => panel.draw());
  }

  // a tool; none if it is taken already
  take(tool) {
    this.set({ tool: this.tool === tool ? null : tool });
  }

  // a button of the legend that chooses a label to paint
  choice(label) {
    const button = document.createElement("button");
    const title = say("viewer.paint", { label: label.name });
    Object.assign(button, { type: "button", title });
    button.addEventListener("click", () => this.set({ value: label.value, tool: "brush" }));
    this.choices.set(label.value, button);
    this.show();
    return button;
  }

  // Whether a key was meant for the tools.
  key(event, voxel) {
    const letter = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (letter !== "z" || event.altKey) return this.resize(event.key);
      this.undo();
      return true;
    }
    if (letter === "b") this.take("brush");
    else if (letter === "e") this.take("eraser");
    else if (this.tool && (event.key === "Enter" || event.key === " ")) {
      this.begin(voxel);
      this.end();
    } else return this.resize(event.key);
    return true;
  }

  resize(key) {
    if (key !== "[" && key !== "]") return false;
    this.set({ radius: Number((key === "]" ? this.radius * 1.25 : this.radius / 1.25).toPrecision(3)) });
    return true;
  }

  begin(voxel) {
    this.last = voxel;
    this.add([voxel], false);
  }

  // to another voxel, through those between
  move(voxel) {
    if (!this.last || voxel.every((v, i) => v === this.last[i])) return;
    const from = this.last;
    const count = Math.max(...voxel.map((v, i) => Math.abs(v - from[i])));
    // a large ball needs not be set at each voxel
    const step = Math.max(1, Math.floor(this.radius / (4 * Math.max(...this.spacing))));
    const points = [];
    for (let i = step; i < count; i += step) points.push(voxel.map((v, a) => Math.round(from[a] + ((v - from[a]) * i) / count)));
    this.last = voxel;
    this.add([...points, voxel], true);
  }

  end() {
    this.last = null;
  }

  get spacing() {
    const a = this.viewer.scene.affine;
    return [0, 1, 2].map((i) => Math.hypot(a[0][i], a[1][i], a[2][i]));
  }

  add(points, continues) {
    const value = this.tool === "eraser" ? 0 : this.kept.value;
    for (let i = 0; i < points.length; i += MOST_POINTS) {
      const more = points.slice(i, i + MOST_POINTS);
      const latest = this.parts.at(-1);
      if (continues && latest?.points && latest.points.length + more.length <= MOST_POINTS) latest.points.push(...more);
      else this.parts.push({ value, radius: this.radius, points: more, continues: continues || i > 0 });
    }
    this.send();
  }

  undo() {
    this.parts.push({});
    this.send();
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    const { scene } = this.viewer;
    try {
      while (this.parts.length) {
        const part = this.parts.shift();
        const answer = await this.viewer.post(part.points ? "stroke" : "undo", part);
        if (answer === null || this.viewer.scene !== scene) {
          this.parts = [];
          return;
        }
        scene.revision = answer.revision;
        if (part.points) scene.mask.corrected = true;
        this.tell("");
        this.show();
        this.viewer.refresh();
        this.viewer.hover(null);
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.viewer.surface?.load(), SURFACE_MS);
      }
    } finally {
      this.sending = false;
    }
  }

  async train() {
    const answer = await this.viewer.post("training", {});
    if (answer !== null) this.tell(say("viewer.trained", answer));
  }

  tell(message) {
    this.root.querySelector(".vx-kept").textContent = message;
  }

  stop() {
    clearTimeout(this.timer);
  }
}
