"use strict";
// The pages of `urae ui`. What they show of jobs comes from the server as news; nothing is kept here.

const statusLine = document.getElementById("status");
const say = (text) => { statusLine.textContent = text; };

async function post(path, body, type = "application/json") {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers: { "Content-Type": type }, body: type === "application/json" ? JSON.stringify(body) : body });
  } catch {
    throw new Error("No connection to the server: is urae ui still running?");
  }
  const said = await answer.json().catch(() => ({ detail: "The server failed." }));
  if (!answer.ok) throw new Error(said.detail);
  return said;
}

async function act(button, path, body, type) {
  if (button) button.disabled = true;
  try {
    const said = await post(path, body, type);
    if (said.next) location.assign(said.next);
    else location.reload();
  } catch (error) {
    say(error.message);
    if (button) button.disabled = false;
  }
}

// --- asking

const form = document.getElementById("draw");

function fields() {
  return Object.fromEntries([...new FormData(form)].filter(([, value]) => typeof value === "string" && value !== ""));
}

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  act(event.submitter, "/draw", { fields: fields() });
});

document.getElementById("sketch")?.addEventListener("click", (event) => {
  if (!form.reportValidity()) return;
  const { prompt, negative, seeds } = fields();
  const first = Number.parseInt(seeds, 10) || 0;
  const asked = { prompt, size: event.target.dataset.size, seeds: `${first}-${first + 3}` };
  if (negative) asked.negative = negative;
  act(event.target, "/draw", { fields: asked });
});

document.querySelectorAll("[data-adapter]").forEach((chip) => chip.addEventListener("click", () => {
  const lines = document.getElementById("adapters");
  lines.value = `${lines.value.trim()}\n${chip.dataset.adapter}`.trim();
}));

const size = document.getElementById("size");
const chips = [...document.querySelectorAll("[data-size].chip")];
const pressed = () => chips.forEach((chip) => chip.setAttribute("aria-pressed", String(chip.dataset.size === size.value)));
chips.forEach((chip) => chip.addEventListener("click", () => { size.value = chip.dataset.size; pressed(); }));
if (size) { size.addEventListener("input", pressed); pressed(); }

document.getElementById("own")?.addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) act(null, "/upload", file, "application/octet-stream");
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.post) act(button, button.dataset.post, { name: button.dataset.name });
  if (button?.dataset.larger) {
    const { larger, native, prompt } = button.dataset;
    act(button, "/draw", { fields: { prompt, native, larger, method: "sdedit" } });
  }
});

document.getElementById("compare")?.addEventListener("click", () => {
  const names = [...document.querySelectorAll("#pick input:checked")].map((box) => box.value);
  if (names.length < 1 || names.length > 4) say("Choose one to four pictures.");
  else location.assign(`/look?p=${encodeURIComponent(names.join(","))}`);
});

// --- news

const time = (seconds) => (seconds < 90 ? `${seconds} s left` : `${Math.round(seconds / 60)} min left`);

function show(job) {
  const place = document.querySelector(`[data-job="${job.id}"]`);
  if (!place) return;
  if (place.dataset.state !== job.state || Number(place.dataset.pictures) !== job.pictures.length) return location.reload();
  const bar = place.querySelector("progress");
  bar.max = job.steps || 1;
  bar.value = job.step;
  place.querySelector(".left").textContent = job.state !== "drawing" ? "" : `step ${job.step} of ${job.steps}${job.left === null ? "" : `, ${time(job.left)}`}`;
  const preview = place.querySelector(".preview");
  if (preview && job.previews) {
    preview.src = `/preview/${job.id}?n=${job.previews}`;
    preview.hidden = false;
  }
}

if (document.querySelector("[data-job], [data-queue], [data-reload], #draw")) {
  const news = new EventSource("/events");
  news.onmessage = (event) => {
    const { model, jobs } = JSON.parse(event.data);
    if (document.querySelector("[data-reload]") && ("native" in model || "error" in model)) return location.reload();
    const drawing = jobs.find((job) => job.state === "drawing");
    const waiting = jobs.filter((job) => job.state === "queued").length;
    document.getElementById("now").textContent = drawing ? `drawing, step ${drawing.step} of ${drawing.steps}${waiting ? `, ${waiting} waiting` : ""}` : "";
    // A job that was asked for in another tab has no place in this one's queue yet.
    if (document.querySelector("[data-queue]") && jobs.some((job) => !document.querySelector(`[data-job="${job.id}"]`))) return location.reload();
    jobs.forEach(show);
  };
  addEventListener("pagehide", () => news.close());
}

// --- looking

const stage = document.getElementById("stage");
if (stage) {
  const panes = [...stage.querySelectorAll(".pane")];
  const zoom = document.getElementById("zoom"), slide = document.getElementById("slide"), slider = document.getElementById("slider");
  let at = [0.5, 0.5]; // the point of each picture that lies in the middle of its pane

  function place() {
    for (const pane of panes) {
      const picture = pane.querySelector("img");
      const width = Number(picture.dataset.width) / devicePixelRatio, height = Number(picture.dataset.height) / devicePixelRatio;
      const within = (point, whole, room) => (whole <= room ? (room - whole) / 2 : Math.min(0, Math.max(room - whole, room / 2 - point * whole)));
      picture.style.setProperty("--w", `${width}px`);
      picture.style.setProperty("--h", `${height}px`);
      picture.style.setProperty("--x", `${within(at[0], width, pane.clientWidth)}px`);
      picture.style.setProperty("--y", `${within(at[1], height, pane.clientHeight)}px`);
    }
  }

  function setZoom(on, point) {
    if (point) at = point;
    document.body.classList.toggle("zoomed", on);
    zoom.setAttribute("aria-pressed", String(on));
    place();
  }

  zoom.addEventListener("click", () => setZoom(!document.body.classList.contains("zoomed")));
  addEventListener("resize", place);
  let dragged = null;
  for (const pane of panes) {
    const picture = pane.querySelector("img");
    pane.addEventListener("click", (event) => {
      if (document.body.classList.contains("zoomed")) return;
      const box = pane.getBoundingClientRect();
      const ratio = picture.naturalWidth / picture.naturalHeight;
      const shown = Math.min(box.width, box.height * ratio);
      const clamp = (value) => Math.min(1, Math.max(0, value));
      const x = (event.clientX - box.left - (box.width - shown) / 2) / shown;
      const y = (event.clientY - box.top - (box.height - shown / ratio) / 2) / (shown / ratio);
      setZoom(true, [clamp(x), clamp(y)]);
    });
    pane.addEventListener("pointerdown", (event) => {
      if (!document.body.classList.contains("zoomed")) return;
      dragged = { x: event.clientX, y: event.clientY, at, width: parseFloat(picture.style.getPropertyValue("--w")), height: parseFloat(picture.style.getPropertyValue("--h")) };
      pane.setPointerCapture(event.pointerId);
    });
    pane.addEventListener("pointermove", (event) => {
      if (!dragged) return;
      const clamp = (value) => Math.min(1, Math.max(0, value));
      at = [clamp(dragged.at[0] - (event.clientX - dragged.x) / dragged.width), clamp(dragged.at[1] - (event.clientY - dragged.y) / dragged.height)];
      place();
    });
    for (const end of ["pointerup", "pointercancel"]) pane.addEventListener(end, () => { dragged = null; });
  }
  slide?.addEventListener("click", () => {
    const on = document.body.classList.toggle("sliding");
    slide.setAttribute("aria-pressed", String(on));
    slider.hidden = !on;
    place();
  });
  slider?.addEventListener("input", () => panes[0].style.setProperty("--cut", `${slider.value}%`));
}
