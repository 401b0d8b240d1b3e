"use strict";
// The pages of a study. A choice counts as made only when the server says that it is on its disk.

const statusLine = document.getElementById("status");

async function post(path, body) {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  } catch {
    throw new Error("No connection: not saved. Try again.");
  }
  const said = await answer.json().catch(() => ({ detail: "The server failed: not saved." }));
  if (!answer.ok) throw new Error(said.detail);
  return said;
}

function say(text, failed = false) {
  statusLine.textContent = text;
  statusLine.classList.toggle("failed", failed);
}

function onClick(id, action) {
  const button = document.getElementById(id);
  button?.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await action(button);
    } catch (error) {
      say(error.message, true);
      button.disabled = false;
    }
  });
}

onClick("join", async (button) => location.assign((await post("/join", { token: button.dataset.token })).next));
onClick("submit", async () => location.assign((await post("/submit", {})).next));

if (document.body.classList.contains("ballot")) ballot();

function ballot() {
  const body = document.body;
  const stage = document.querySelector(".stage");
  const panes = [...document.querySelectorAll(".pane")];
  const questions = [...document.querySelectorAll(".question")];
  const width = Number(body.dataset.width), height = Number(body.dataset.height);
  let active = 0;
  let looked = false; // at the native pixels of this set

  // --- questions

  const choices = (question) => [...question.querySelectorAll("button")];
  const chosen = (question) => choices(question).find((button) => button.getAttribute("aria-pressed") === "true");

  function activate(index) {
    active = Math.max(0, Math.min(questions.length - 1, index));
    showChoices();
  }

  function showChoices() {
    questions.forEach((question, index) => question.classList.toggle("active", index === active));
    const picture = chosen(questions[active])?.dataset.picture;
    panes.forEach((pane) => pane.classList.toggle("chosen", pane.dataset.picture === picture));
    body.classList.toggle("complete", questions.every(chosen));
  }

  function press(question, button) {
    choices(question).forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
  }

  let sending = Promise.resolve(); // one after the other, so that the last choice is the last on the disk

  function choose(index, button) {
    const question = questions[index], before = chosen(question);
    active = index;
    press(question, button);
    showChoices();
    say("Saving");
    sending = sending.then(async () => {
      try {
        const said = await post("/vote", {
          position: Number(body.dataset.position), aspect: question.dataset.aspect, picture: button.dataset.picture, zoomed: looked,
        });
        saved(index, said.open.length);
      } catch (error) {
        if (chosen(question) === button) press(question, before);
        activate(index);
        say(error.message, true);
      }
    });
  }

  function saved(index, numOpen) {
    const bar = document.querySelector("progress");
    bar.value = bar.max - numOpen;
    document.getElementById("answered").textContent = bar.max - numOpen;
    say("Saved");
    const open = questions.findIndex((question) => !chosen(question));
    if (active === index && open >= 0) activate(open);
  }

  questions.forEach((question, index) => {
    question.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) choose(index, button);
      else activate(index);
    });
  });

  async function leave(link) {
    // Choices under way are waited for; one that failed keeps the page, so that it is seen.
    await sending;
    if (link.href && !statusLine.classList.contains("failed")) location.assign(link.href);
  }
  for (const id of ["back", "next"]) {
    const link = document.getElementById(id);
    link.addEventListener("click", (event) => {
      event.preventDefault();
      statusLine.classList.remove("failed");
      leave(link);
    });
  }

  // --- layout: the number of columns under which the pictures are largest

  const GAP = 4; // as in the style sheet

  const prompt = document.querySelector(".prompt");
  prompt.addEventListener("click", () => prompt.classList.toggle("whole"));

  function arrange() {
    // Faded where it goes on, and shown whole by a click.
    prompt.classList.toggle("long", prompt.scrollHeight > prompt.clientHeight + 2);
    const room = { width: stage.clientWidth - GAP, height: stage.clientHeight - GAP };
    let best = 0;
    for (let columns = 1; columns <= panes.length; columns++) {
      const rows = Math.ceil(panes.length / columns);
      const scale = Math.min((room.width / columns - GAP) / width, (room.height / rows - GAP) / height);
      if (scale <= best * 1.001) continue;
      best = scale;
      stage.style.setProperty("--columns", columns);
      stage.style.setProperty("--pane-width", `${width * scale}px`);
      stage.style.setProperty("--pane-height", `${height * scale}px`);
    }
    place();
  }

  // --- 100%: one pixel of the picture is one of the screen, the same place in every pane

  const centre = { x: 0.5, y: 0.5 }; // in pictures
  const shown = () => ({ width: width / devicePixelRatio, height: height / devicePixelRatio });

  function place() {
    if (!body.classList.contains("zoomed")) return;
    const pane = panes[0].getBoundingClientRect(), size = shown();
    const [x, y] = [["x", pane.width, size.width], ["y", pane.height, size.height]].map(([axis, room, full]) => {
      const half = Math.min(0.5, room / full / 2);
      centre[axis] = Math.max(half, Math.min(1 - half, centre[axis]));
      // On whole pixels of the screen, as anything else would blur.
      return Math.round((room / 2 - centre[axis] * full) * devicePixelRatio) / devicePixelRatio;
    });
    for (const [name, value] of [["--width", size.width], ["--height", size.height], ["--x", x], ["--y", y]]) {
      stage.style.setProperty(name, `${value}px`);
    }
  }

  function watchScale() {
    // Another monitor or the browser's own zoom: the page may keep its size while its pixels change theirs.
    const again = () => {
      place();
      watchScale();
    };
    matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", again, { once: true });
  }

  function loadNative(pane) {
    const image = pane.querySelector(".native");
    if (image.src) return;
    pane.classList.add("waiting");
    image.addEventListener("load", () => pane.classList.remove("waiting"));
    image.addEventListener("error", () => {
      image.removeAttribute("src");
      say("A picture could not be loaded: look again.", true);
    });
    image.src = `/picture/${pane.dataset.picture}`;
  }

  const zoomButton = document.getElementById("zoom");

  function zoom(on) {
    body.classList.toggle("zoomed", on);
    zoomButton.setAttribute("aria-pressed", String(on));
    zoomButton.textContent = on ? "Fit" : "100%";
    if (on) {
      looked = true;
      panes.forEach(loadNative);
      place();
    }
  }

  zoomButton.addEventListener("click", () => zoom(!body.classList.contains("zoomed")));

  function zoomAt(pane, event) {
    // Where in the picture the pointer is; a pane has the picture's shape.
    const box = pane.getBoundingClientRect();
    centre.x = (event.clientX - box.left) / box.width;
    centre.y = (event.clientY - box.top) / box.height;
    zoom(true);
  }

  function move(dx, dy) {
    const size = shown();
    centre.x -= dx / size.width;
    centre.y -= dy / size.height;
    place();
  }

  panes.forEach((pane) => {
    let start = null, moved = false;
    pane.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !event.isPrimary) return;
      start = event;
      moved = false;
      if (body.classList.contains("zoomed")) pane.setPointerCapture(event.pointerId);
    });
    pane.addEventListener("pointermove", (event) => {
      if (!start || !event.isPrimary || !body.classList.contains("zoomed")) return;
      if (!moved && Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) < 5) return;
      if (moved) move(event.clientX - moved.x, event.clientY - moved.y);
      moved = { x: event.clientX, y: event.clientY };
      pane.classList.add("dragging");
    });
    pane.addEventListener("pointerup", (event) => {
      pane.classList.remove("dragging");
      if (start && !moved) {
        if (body.classList.contains("zoomed")) zoom(false);
        else zoomAt(pane, event);
      }
      start = null;
    });
    pane.addEventListener("pointercancel", () => {
      pane.classList.remove("dragging");
      start = null;
    });
  });

  // --- keys

  const STEP = 80;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const zoomed = body.classList.contains("zoomed");
    const keys = {
      z: () => zoom(!zoomed),
      escape: () => zoom(false),
      arrowup: () => (zoomed ? move(0, STEP) : activate(active - 1)),
      arrowdown: () => (zoomed ? move(0, -STEP) : activate(active + 1)),
      arrowleft: () => (zoomed ? move(STEP, 0) : document.getElementById("back").click()),
      arrowright: () => (zoomed ? move(-STEP, 0) : document.getElementById("next").click()),
    };
    const action = keys[event.key.toLowerCase()];
    const slot = /^[1-9]$/.test(event.key) ? choices(questions[active])[Number(event.key) - 1] : null;
    if (slot && !event.repeat) choose(active, slot);
    else if (action) action();
    else return;
    event.preventDefault();
  });

  const open = questions.findIndex((question) => !chosen(question));
  activate(open < 0 ? 0 : open);
  new ResizeObserver(arrange).observe(stage);
  watchScale();
  arrange();
}
