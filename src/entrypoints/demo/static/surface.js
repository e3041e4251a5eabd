// The mask's surfaces: a binary glTF scene in world coordinates (RAS+), drawn with WebGL 2; turned by mouse and keys.

import { say } from "./texts.js";

const VERTEX = `#version 300 es
in vec3 position; in vec3 normal; uniform mat4 camera; uniform mat4 turned; out vec3 facing;
void main() { facing = mat3(turned) * normal; gl_Position = camera * vec4(position, 1.0); }`;
const FRAGMENT = `#version 300 es
precision highp float; in vec3 facing; uniform vec3 colour; uniform float lit; out vec4 shown;
void main() {
  vec3 n = normalize(facing);
  if (!gl_FrontFacing) n = -n;
  float light = 0.35 + 0.65 * max(0.0, dot(n, normalize(vec3(0.25, 0.45, 0.85))));
  float gloss = pow(max(0.0, dot(n, normalize(vec3(0.12, 0.22, 0.97)))), 30.0) * 0.22;
  shown = vec4(mix(colour, colour * light + gloss, lit), 1.0);
}`;
const START = { turn: -0.5, tilt: 0.45, zoom: 1, pan: [0, 0] };

export class SurfacePanel {
  constructor(viewer) {
    this.viewer = viewer;
    this.meshes = null;
    this.labels = [];
    this.running = true;
    Object.assign(this, structuredClone(START));
    this.root = document.createElement("section");
    this.root.className = "vx-panel vx-surface";
    this.root.innerHTML =
      `<div class="vx-title"><span class="vx-name">${say("viewer.surfaces")}</span>` +
      `<span class="vx-hint">${say("viewer.surfaces_hint")}</span><output class="vx-index"></output></div>` +
      `<div class="vx-stagebox"><canvas tabindex="0" role="img" aria-label="${say("viewer.surfaces_title")}"></canvas>` +
      `<canvas class="vx-over" role="img" aria-label="${say("viewer.surfaces_box")}"></canvas>` +
      `<p class="vx-say" role="status"></p></div>`;
    [this.canvas, this.over] = this.root.querySelectorAll("canvas");
    this.say(say(viewer.scene.mask ? "viewer.surfaces_made" : "viewer.surfaces_later"));
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    if (viewer.scene.mask) this.load();
  }

  say(message) {
    this.root.querySelector(".vx-say").textContent = message;
  }

  stop() {
    this.running = false;
    const gl = this.gl;
    if (gl) gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  // Fetch and show the surfaces, in place of earlier ones.
  async load() {
    this.gl ||= this.canvas.getContext("webgl2", { antialias: true, alpha: false, preserveDrawingBuffer: true });
    if (!this.gl) return this.say(say("viewer.surfaces_off"));
    const { id, revision } = this.viewer.scene;
    const answer = await this.viewer.fetch(`session/${id}/surfaces?of=${revision}`);
    if (answer === null || !this.running || revision !== this.viewer.scene.revision) return this.say("");
    const content = await answer.arrayBuffer();
    if (!this.program) this.prepare();
    this.release();
    this.meshes = content.byteLength === 0 ? [] : readGlb(content).map((mesh) => this.upload(mesh));
    this.lines ||= this.boxLines();
    this.say(this.meshes.length ? "" : say("viewer.surfaces_none"));
    const faces = this.meshes.reduce((sum, mesh) => sum + mesh.count / 3, 0);
    this.root.querySelector("output").textContent = say("viewer.triangles", { thousands: Math.round(faces / 1000) });
    this.canvas.dataset.faces = String(faces);
    this.draw();
  }

  release() {
    for (const { array, buffers } of this.meshes || []) {
      this.gl.deleteVertexArray(array);
      buffers.forEach((buffer) => this.gl.deleteBuffer(buffer));
    }
  }

  refresh(labels) {
    this.labels = labels;
    this.draw();
  }

  prepare() {
    const gl = this.gl;
    this.program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    }
    gl.bindAttribLocation(this.program, 0, "position");
    gl.bindAttribLocation(this.program, 1, "normal");
    gl.linkProgram(this.program);
    this.place = (name) => gl.getUniformLocation(this.program, name);
  }

  upload({ value, positions, normals, indices }) {
    const gl = this.gl;
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    const buffers = [0, 1, 2].map(() => gl.createBuffer());
    [positions, normals].forEach((data, slot) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, buffers[slot]);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(slot);
      gl.vertexAttribPointer(slot, 3, gl.FLOAT, false, 0, 0);
    });
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers[2]);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, indices, gl.STATIC_DRAW);
    return { value, array, buffers, count: indices.length };
  }

  world(voxel) {
    const a = this.viewer.scene.affine;
    return [0, 1, 2].map((i) => a[i][0] * voxel[0] + a[i][1] * voxel[1] + a[i][2] * voxel[2] + a[i][3]);
  }

  get corners() {
    const ends = this.viewer.scene.shape.map((n) => [-0.5, n - 0.5]);
    return [0, 1, 2, 3, 4, 5, 6, 7].map((c) => this.world([ends[0][c & 1], ends[1][(c >> 1) & 1], ends[2][(c >> 2) & 1]]));
  }

  boxLines() {
    const gl = this.gl;
    const array = gl.createVertexArray();
    const buffer = gl.createBuffer();
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
    return { array, buffer };
  }

  reset() {
    Object.assign(this, structuredClone(START));
    this.draw();
  }

  // camera (projection and view), and the view's rotation for normals; column-major
  cameras(width, height) {
    const corners = this.corners;
    const centre = [0, 1, 2].map((i) => corners.reduce((s, c) => s + c[i], 0) / 8);
    const radius = Math.max(...corners.map((c) => Math.hypot(...c.map((v, i) => v - centre[i])))) || 1;
    const [ct, st, ce, se] = [Math.cos(this.turn), Math.sin(this.turn), Math.cos(this.tilt), Math.sin(this.tilt)];
    // right, up and towards the eye, in the world: seen from the front and above at first
    const right = [-ct, -st, 0];
    const back = [-st * ce, ct * ce, se];
    const up = [st * se, -ct * se, ce];
    const distance = (radius * 3.2) / this.zoom;
    const near = Math.max(distance - 2 * radius, radius / 100);
    const far = distance + 2 * radius;
    const f = 3.5;
    const aspect = width / height;
    const narrow = Math.min(1, aspect);
    const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    const view = [
      right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0,
      -dot(right, centre) + this.pan[0] * radius, -dot(up, centre) + this.pan[1] * radius, -dot(back, centre) - distance, 1,
    ];
    const projection = [
      (f * narrow) / aspect, 0, 0, 0, 0, f * narrow, 0, 0,
      0, 0, (far + near) / (near - far), -1, 0, 0, (2 * far * near) / (near - far), 0,
    ];
    return { camera: multiply(projection, view), turned: view };
  }

  draw() {
    if (!this.meshes || !this.running || this.canvas.clientWidth === 0) return;
    const gl = this.gl;
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.over]) {
      const size = [Math.round(this.canvas.clientWidth * ratio), Math.round(this.canvas.clientHeight * ratio)];
      if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    }
    const { width, height } = this.canvas;
    const { camera, turned } = this.cameras(width, height);
    gl.viewport(0, 0, width, height);
    gl.enable(gl.DEPTH_TEST);
    gl.clearColor(0.05, 0.055, 0.065, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.useProgram(this.program);
    gl.uniformMatrix4fv(this.place("camera"), false, camera);
    gl.uniformMatrix4fv(this.place("turned"), false, turned);
    this.drawLines();
    gl.uniform1f(this.place("lit"), 1);
    for (const mesh of this.meshes) {
      const label = this.labels.find((l) => l.value === mesh.value);
      if (!label || !label.shown || !this.viewer.settings.mask) continue;
      gl.uniform3fv(this.place("colour"), rgb(label.colour));
      gl.bindVertexArray(mesh.array);
      gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_INT, 0);
    }
    this.drawLetters(camera, ratio);
  }

  drawLines() {
    const gl = this.gl;
    const c = this.corners;
    const edges = [0, 1, 2, 3, 4, 5, 6, 7].flatMap((i) => [1, 2, 4].filter((b) => !(i & b)).map((b) => [c[i], c[i | b]]));
    const draw = (lines, colour) => {
      gl.bindVertexArray(this.lines.array);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.lines.buffer);
      gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(lines.flat(2)), gl.DYNAMIC_DRAW);
      gl.uniform3fv(this.place("colour"), rgb(colour));
      gl.drawArrays(gl.LINES, 0, lines.length * 2);
    };
    gl.uniform1f(this.place("lit"), 0);
    gl.vertexAttrib3f(1, 0, 0, 1);
    draw(edges, "#717a88");
    if (!this.viewer.settings.crosshair) return;
    const at = this.viewer.crosshair;
    const across = (axis) => [-0.5, this.viewer.scene.shape[axis] - 0.5].map((v) => this.world(at.map((x, i) => (i === axis ? v : x))));
    draw([0, 1, 2].map(across), "#c9d1d9");
  }

  drawLetters(camera, ratio) {
    const pen = this.over.getContext("2d");
    const { width, height } = this.over;
    pen.clearRect(0, 0, width, height);
    pen.font = `600 ${13 * ratio}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const corners = this.corners;
    const middle = [0, 1, 2].map((i) => corners.reduce((s, c) => s + c[i], 0) / 8);
    const reach = [0, 1, 2].map((i) => (Math.max(...corners.map((c) => c[i])) - Math.min(...corners.map((c) => c[i]))) / 2);
    ["RL", "AP", "SI"].forEach((pair, axis) =>
      [1, -1].forEach((sign, which) => {
        const p = middle.map((m, i) => m + (i === axis ? sign * (reach[i] * 1.04 + 0.06 * Math.max(...reach)) : 0));
        const [x, y, , w] = transform(camera, p);
        pen.lineWidth = 3 * ratio;
        pen.strokeStyle = "#0d0e11";
        pen.fillStyle = "#e6edf3";
        const at = [((x / w + 1) / 2) * width, ((1 - y / w) / 2) * height];
        pen.strokeText(pair[which], ...at);
        pen.fillText(pair[which], ...at);
      }),
    );
  }

  listen() {
    const { canvas } = this;
    let grip = null;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      canvas.focus({ preventScroll: true });
      event.preventDefault();
      grip = { moves: event.shiftKey || event.button !== 0, x: event.offsetX, y: event.offsetY };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!grip) return;
      const dx = (event.offsetX - grip.x) / canvas.clientHeight;
      const dy = (event.offsetY - grip.y) / canvas.clientHeight;
      [grip.x, grip.y] = [event.offsetX, event.offsetY];
      if (grip.moves) this.pan = [this.pan[0] + (2.2 * dx) / this.zoom, this.pan[1] - (2.2 * dy) / this.zoom];
      else this.rotate(-4 * dx, 4 * dy);
      this.draw();
    });
    const release = () => (grip = null);
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.viewer.enlarge(this.root));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.scale(event.deltaY < 0 ? 1.12 : 1 / 1.12);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const turns = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
      if (event.key in turns) this.rotate(...turns[event.key]);
      else if (event.key === "+") this.scale(1.12);
      else if (event.key === "-") this.scale(1 / 1.12);
      else if (event.key === "0") this.reset();
      else if (event.key === "Enter") this.viewer.enlarge(this.root);
      else return;
      event.preventDefault();
      this.draw();
    });
  }

  rotate(turn, tilt) {
    this.turn += turn;
    this.tilt = Math.min(1.57, Math.max(-1.57, this.tilt + tilt));
  }

  scale(factor) {
    this.zoom = Math.min(30, Math.max(0.3, this.zoom * factor));
    this.draw();
  }
}

// meshes of a binary glTF: header, a JSON chunk, a binary chunk; see the glTF 2.0 specification, 4.4
function readGlb(content) {
  const head = new DataView(content);
  const length = head.getUint32(12, true);
  const json = JSON.parse(new TextDecoder().decode(new Uint8Array(content, 20, length)));
  const start = 28 + length;
  const data = (index, Kind, width) => {
    const accessor = json.accessors[index];
    const from = start + (json.bufferViews[accessor.bufferView].byteOffset || 0) + (accessor.byteOffset || 0);
    return new Kind(content.slice(from, from + accessor.count * width * Kind.BYTES_PER_ELEMENT));
  };
  return json.meshes.map((mesh) => {
    const { attributes, indices } = mesh.primitives[0];
    const kind = json.accessors[indices].componentType === 5125 ? Uint32Array : Uint16Array;
    return {
      value: mesh.extras.value,
      positions: data(attributes.POSITION, Float32Array, 3),
      normals: data(attributes.NORMAL, Float32Array, 3),
      indices: Uint32Array.from(data(indices, kind, 1)),
    };
  });
}

function rgb(colour) {
  return [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16) / 255);
}

function multiply(a, b) {
  const out = new Array(16).fill(0);
  for (let column = 0; column < 4; column++)
    for (let row = 0; row < 4; row++)
      for (let k = 0; k < 4; k++) out[4 * column + row] += a[4 * k + row] * b[4 * column + k];
  return out;
}

function transform(m, p) {
  return [0, 1, 2, 3].map((row) => m[row] * p[0] + m[4 + row] * p[1] + m[8 + row] * p[2] + m[12 + row]);
}
