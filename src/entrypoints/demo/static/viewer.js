// <voxport-viewer data-scene="BASE64 JSON">: three linked planes and the mask's surfaces. Voxels stay on the server;
// slices come as pictures. Gradio changes the attribute or puts in a new element whenever the scene changes: so what is
// shown is in a shadow tree, which Gradio leaves alone, and what a person has set is kept here, beside the elements.

import { Brush } from "./brush.js";
import { PlanePanel } from "./plane.js";
import { SurfacePanel } from "./surface.js";
import { say } from "./texts.js";

const kept = { volume: null, settings: null, crosshair: null, labels: null, brush: null };

const TOOLBAR = `
  <div class="vx-tools" role="toolbar" aria-label="${say("viewer.tools")}">
    <label>${say("viewer.black")} <input type="number" name="low" step="any"></label>
    <label>${say("viewer.white")} <input type="number" name="high" step="any"></label>
    <button type="button" name="auto" title="${say("viewer.auto_title")}">${say("viewer.auto")}</button>
    <button type="button" name="full" title="${say("viewer.full_title")}">${say("viewer.full")}</button>
    <label class="vx-channel">${say("viewer.channel")} <select name="channel"></select></label>
    <label title="${say("viewer.side_title")}">${say("viewer.side")}
      <select name="convention"><option value="radiological">${say("viewer.radiological")}</option>
      <option value="neurological">${say("viewer.neurological")}</option></select></label>
    <label><input type="checkbox" name="crosshair"> ${say("viewer.crosshair")}</label>
    <label><input type="checkbox" name="smooth"> ${say("viewer.smooth")}</label>
    <button type="button" name="reset" title="${say("viewer.reset_title")}">${say("viewer.reset")}</button>
    <a class="vx-picture" download="view.png">${say("viewer.picture")}</a>
  </div>
  <div class="vx-tools vx-masktools" role="toolbar" aria-label="${say("viewer.mask_tools")}">
    <label><input type="checkbox" name="mask"> <b>${say("viewer.mask")}</b></label>
    <label>${say("viewer.opacity")} <input type="range" name="opacity" min="0" max="1" step="0.05"></label>
    <label><input type="radio" name="outline" value="fill"> ${say("viewer.fill")}</label>
    <label><input type="radio" name="outline" value="outline"> ${say("viewer.outline")}</label>
    <div class="vx-labels" role="group" aria-label="${say("viewer.labels")}"></div>
    <span class="vx-caution"></span>
  </div>`;

const STYLE = `<link rel="stylesheet" href="${new URL("viewer.css", import.meta.url)}">`;

const EMPTY = `
  <div class="vx-empty"><svg viewBox="0 0 64 64" aria-hidden="true"><rect x="8" y="8" width="22" height="22" rx="3"/>
  <rect x="34" y="8" width="22" height="22" rx="3"/><rect x="8" y="34" width="22" height="22" rx="3"/>
  <path d="M45 34l11 6v11l-11 6-11-6V40z"/></svg>
  <p><b>${say("viewer.empty")}</b></p><p>${say("viewer.empty_do")}</p>
  <p class="vx-hint">${say("viewer.empty_hint")}</p></div>`;

class Viewer extends HTMLElement {
  static observedAttributes = ["data-scene"];

  connectedCallback() {
    this.show();
  }

  attributeChangedCallback(name, before) {
    if (before !== null && this.isConnected) this.show();
  }

  show() {
    this.stop();
    this.surface = null;
    this.read = null;
    this.view ||= this.attachShadow({ mode: "open" });
    this.scene = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(this.dataset.scene), (c) => c.charCodeAt(0))));
    if (!this.scene) {
      Object.assign(kept, { volume: null, settings: null, crosshair: null, labels: null, brush: null });
      this.view.innerHTML = STYLE + EMPTY;
      return;
    }
    this.keepSession();
    if (kept.volume !== this.scene.volume) this.begin();
    kept.labels = this.labels();
    this.build();
    window.voxport = { crosshair: () => this.crosshair.join(","), viewer: this };
    this.refresh();
  }

  // The secret of the session is in a cookie that its own routes alone get, and is kept for when the page is loaded again.
  keepSession() {
    const { id, token } = this.scene;
    const path = new URL(`session/${id}`, document.baseURI).pathname;
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `voxport-${id}=${token}; path=${path}; SameSite=Strict${secure}`;
    sessionStorage.setItem("voxport-session", token);
  }

  disconnectedCallback() {
    this.stop();
  }

  stop() {
    this.surface?.stop();
    this.brush?.stop();
  }

  get settings() {
    return kept.settings;
  }

  get crosshair() {
    return kept.crosshair;
  }

  // a volume that has not been looked at yet
  begin() {
    const [low, high] = this.scene.channels[0].window;
    const before = kept.settings || {};
    kept.settings = {
      low, high, channel: 0, convention: before.convention || "radiological", crosshair: true, smooth: true,
      mask: true, opacity: before.opacity ?? 0.5, outline: before.outline || false,
    };
    kept.crosshair = this.scene.shape.map((n) => Math.floor(n / 2));
    kept.labels = null;
    const spacing = [0, 1, 2].map((i) => Math.hypot(...this.scene.affine.slice(0, 3).map((row) => row[i])));
    kept.brush = { tool: null, value: 0, radius: Number((3 * Math.min(...spacing)).toPrecision(3)) };
    kept.volume = this.scene.volume;
  }

  // labels with what a person has set for them
  labels() {
    const old = new Map((kept.labels || []).map((label) => [`${label.value} ${label.name}`, label]));
    const found = this.scene.mask ? this.scene.mask.labels : [];
    return found.map((label) => old.get(`${label.value} ${label.name}`) || { ...label, shown: true });
  }

  build() {
    this.view.innerHTML = `${STYLE}${TOOLBAR}<div class="vx-grid"></div><div class="vx-foot"><output class="vx-readout"
      aria-live="off"></output><span class="vx-hint"></span></div><div class="vx-trouble" role="alert" hidden></div>`;
    this.view.querySelector(".vx-hint").textContent = say("viewer.help");
    const grid = this.view.querySelector(".vx-grid");
    this.panels = ["axial", "sagittal", "coronal"].map((plane) => new PlanePanel(this, plane));
    this.surface = new SurfacePanel(this);
    // axial and sagittal above, coronal and the surfaces below
    grid.append(...this.panels.map((panel) => panel.root), this.surface.root);
    // a quick look is not corrected: it has no files
    this.brush = this.scene.mask && !this.scene.mask.box ? new Brush(this, kept.brush) : null;
    if (this.brush) grid.before(this.brush.root);
    this.fillTools();
  }

  tool(name) {
    return this.view.querySelector(`.vx-tools [name="${name}"]`);
  }

  fillTools() {
    const { settings, scene } = this;
    const channel = this.tool("channel");
    const name = (c, i) => c.name || say("viewer.channel_number", { number: i + 1 });
    scene.channels.forEach((c, i) => channel.add(new Option(name(c, i), String(i))));
    this.view.querySelector(".vx-channel").hidden = scene.channels.length < 2;
    this.view.querySelector(".vx-masktools").hidden = !scene.mask;
    for (const name of ["low", "high", "opacity", "convention"]) this.tool(name).value = this.shown(name);
    channel.value = String(settings.channel);
    for (const name of ["crosshair", "smooth", "mask"]) this.tool(name).checked = settings[name];
    this.view.querySelector(`[name="outline"][value="${settings.outline ? "outline" : "fill"}"]`).checked = true;
    this.view.querySelector(".vx-caution").textContent = scene.mask?.caution ? say(scene.mask.caution) : "";
    this.listen();
    this.fillLabels();
  }

  shown(name) {
    const value = this.settings[name];
    return typeof value === "number" ? String(Number(value.toPrecision(6))) : value;
  }

  listen() {
    const set = (changes) => {
      Object.assign(this.settings, changes);
      this.refresh();
    };
    for (const name of ["low", "high"])
      this.tool(name).addEventListener("input", (e) => e.target.value !== "" && set({ [name]: Number(e.target.value) }));
    this.tool("opacity").addEventListener("input", (e) => set({ opacity: Number(e.target.value) }));
    this.tool("convention").addEventListener("change", (e) => set({ convention: e.target.value }));
    for (const name of ["crosshair", "smooth", "mask"])
      this.tool(name).addEventListener("change", (e) => set({ [name]: e.target.checked }));
    this.view.querySelectorAll('[name="outline"]').forEach((radio) =>
      radio.addEventListener("change", () => set({ outline: radio.value === "outline" })),
    );
    this.tool("channel").addEventListener("change", (e) => {
      this.settings.channel = Number(e.target.value);
      this.setWindow(...this.scene.channels[this.settings.channel].window);
    });
    const channel = () => this.scene.channels[this.settings.channel];
    this.tool("auto").addEventListener("click", () => this.setWindow(...channel().window));
    this.tool("full").addEventListener("click", () => this.setWindow(...channel().range));
    this.tool("reset").addEventListener("click", () => {
      this.panels.forEach((panel) => panel.reset());
      this.surface.reset();
      this.enlarge(null);
    });
  }

  fillLabels() {
    const place = this.view.querySelector(".vx-labels");
    for (const label of kept.labels) {
      const chip = document.createElement("span");
      chip.className = "vx-label";
      const check = Object.assign(document.createElement("input"), { type: "checkbox", checked: label.shown });
      const colour = Object.assign(document.createElement("input"), { type: "color", value: label.colour });
      check.setAttribute("aria-label", say("viewer.show", { label: label.name }));
      colour.setAttribute("aria-label", say("viewer.colour", { label: label.name }));
      check.addEventListener("change", () => this.setLabel(label, { shown: check.checked }));
      colour.addEventListener("input", () => this.setLabel(label, { colour: colour.value }));
      const name = this.brush ? this.brush.choice(label) : document.createElement("span");
      name.textContent = label.name;
      chip.append(check, colour, name);
      place.append(chip);
    }
  }

  setLabel(label, changes) {
    Object.assign(label, changes);
    this.refresh();
  }

  setWindow(low, high) {
    Object.assign(this.settings, { low, high });
    this.tool("low").value = this.shown("low");
    this.tool("high").value = this.shown("high");
    this.refresh();
  }

  // right drag: sideways for width, up and down for brightness
  dragWindow(low, high, dx, dy) {
    const [least, largest] = this.scene.channels[this.settings.channel].range;
    const span = Math.max(largest - least, 1e-6);
    const level = (low + high) / 2 + dy * span;
    const width = Math.max(span / 500, high - low + dx * span);
    this.setWindow(level - width / 2, level + width / 2);
  }

  moveTo(voxel) {
    kept.crosshair = voxel;
    this.refresh();
    this.hover(voxel);
  }

  enlarge(root) {
    const grid = this.view.querySelector(".vx-grid");
    const already = grid.dataset.large === "1";
    grid.querySelectorAll(".vx-panel").forEach((p) => p.classList.toggle("vx-large", !already && p === root));
    grid.dataset.large = !already && root ? "1" : "";
    this.panels.forEach((panel) => panel.draw());
    this.surface.draw();
  }

  url(path) {
    const { low, high, channel, convention, opacity, outline, mask } = this.settings;
    const labels = kept.labels.filter((label) => mask && label.shown);
    const query = new URLSearchParams({
      low, high, channel, convention, opacity, outline,
      labels: labels.map((label) => `${label.value}-${label.colour.slice(1)}`).join("."),
      of: this.scene.revision,
    });
    return `session/${this.scene.id}/${path}?${query}`;
  }

  // The answer's data to something sent; null after an error, which is shown.
  async post(path, content) {
    const body = JSON.stringify(content);
    const answer = await this.fetch(`session/${this.scene.id}/${path}`, { method: "POST", body });
    return answer && (await answer.json());
  }

  // The answer; null after an error, which is shown.
  async fetch(url, options = {}) {
    let trouble = say("viewer.no_answer");
    let language = "";
    try {
      const answer = await fetch(url, { cache: "no-store", ...options });
      if (answer.ok) {
        this.tell("");
        return answer;
      }
      trouble = say([401, 404, 410].includes(answer.status) ? `viewer.error_${answer.status}` : "viewer.not_shown");
      const detail = answer.status === 422 ? (await answer.json()).detail : null;
      if (typeof detail === "string") [trouble, language] = [detail, "en"]; // in voxport's words
    } catch {
      // no connection
    }
    if (this.isConnected) this.tell(trouble, language);
    return null;
  }

  tell(message, language = "") {
    const place = this.view.querySelector(".vx-trouble");
    place.lang = language || document.documentElement.lang;
    place.hidden = message === "";
    place.textContent = message;
  }

  refresh() {
    this.panels.forEach((panel) => panel.refresh());
    this.surface.refresh(kept.labels);
    const at = Object.fromEntries(this.panels.map((panel) => [panel.plane, panel.index]));
    const link = this.view.querySelector(".vx-picture");
    link.href = this.url("picture") + "&" + new URLSearchParams(at);
    this.classList.toggle("vx-nomask", !this.scene.mask);
    if (!this.read) this.hover(this.crosshair);
  }

  // Show what is at a voxel: the one under the mouse, else the crosshair's.
  hover(voxel) {
    this.wish = voxel || this.crosshair;
    if (!this.reading) this.readout();
  }

  async readout() {
    this.reading = true;
    try {
      while (this.wish) {
        const voxel = this.wish;
        this.wish = null;
        const answer = await this.fetch(`session/${this.scene.id}/voxel/${voxel.join("/")}`);
        if (answer === null || !this.isConnected) return;
        this.read = await answer.json();
        this.say(voxel, this.read);
      }
    } finally {
      this.reading = false;
    }
  }

  say(voxel, read) {
    const a = this.scene.affine;
    const world = [0, 1, 2].map((i) => a[i][0] * voxel[0] + a[i][1] * voxel[1] + a[i][2] * voxel[2] + a[i][3]);
    const sides = ["RL", "AP", "SI"];
    const place = world.map((w, i) => `${Math.abs(Number(w.toPrecision(5)))} ${sides[i][w < 0 ? 1 : 0]}`).join("  ");
    const values = read.values.map((v) => (v === null ? say("viewer.no_number") : Number(v.toPrecision(6)))).join(", ");
    const known = kept.labels.find((label) => label.value === read.label);
    const shown = [
      say("viewer.voxel", { voxel: voxel.join(", ") }),
      `${place} ${this.scene.unit || say("viewer.no_unit")}`,
      say("viewer.value", { values }),
    ];
    if (read.label !== null) shown.push(say("viewer.label", { label: known ? known.name : say("viewer.background") }));
    this.view.querySelector(".vx-readout").textContent = shown.join(" · ");
  }
}

if (!customElements.get("voxport-viewer")) {
  customElements.define("voxport-viewer", Viewer);
  // leaving the page would throw away the volume, its run and its mask
  window.addEventListener("beforeunload", (event) => kept.volume && event.preventDefault());
  document.addEventListener("click", (event) => {
    const spot = event.target.closest(".vx-spot");
    if (spot && kept.volume) window.voxport.viewer.moveTo(spot.dataset.voxel.split(",").map(Number));
    const button = event.target.closest(".vx-copy");
    if (!button) return;
    const text = button.parentElement.querySelector("pre").textContent;
    const done = () => (button.textContent = say("viewer.copied"));
    const range = document.createRange();
    range.selectNodeContents(button.parentElement.querySelector("pre"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    const copySelected = () => document.execCommand("copy") && done();
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, copySelected);
    else copySelected();
  });
}
