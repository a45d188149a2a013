// The page of `mpegflow serve`. Names, tags and messages are the tenant's or a stranger's file's: they go in by textContent
// only, and the page's policy would let nothing of them run anyway.

import { authorization, follow, json, loadKey, Refused, setKey, upload } from "/api.js";

const $ = (id) => document.getElementById(id);
const FINAL = new Set(["succeeded", "failed", "canceled"]);
const cards = new Map();
const names = new Map();
let remedies = {};
let older = null;
let session = null;

// --- small things ------------------------------------------------------------------------------------------------------

function element(tag, text, parent) {
  const node = document.createElement(tag);
  node.textContent = text;
  parent?.append(node);
  return node;
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? n : n.toFixed(1)} ${units[unit]}`;
}

/** A file's name as the API takes it: what could disguise text is a space, and 128 characters are enough. */
function plain(name) {
  return name.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, " ").slice(0, 128);
}

function clock(seconds) {
  const s = Math.round(seconds);
  const parts = [Math.floor(s / 3600), Math.floor(s / 60) % 60, s % 60];
  if (parts[0] === 0) parts.shift();
  return parts.map((part, index) => (index ? String(part).padStart(2, "0") : String(part))).join(":");
}

// --- jobs --------------------------------------------------------------------------------------------------------------

function card(id, atTop) {
  let entry = cards.get(id);
  if (entry) return entry;
  const root = $("job-template").content.firstElementChild.cloneNode(true);
  const part = (name) => root.querySelector(`.${name}`);
  entry = { root, part, job: null, hls: null, reading: false, again: false };
  part("id").textContent = id;
  part("cancel").addEventListener("click", async () => {
    part("cancel").disabled = true;
    try {
      show(await json(`/v1/jobs/${id}/cancel`, { method: "POST" }));
    } catch (error) {
      part("how").textContent = error.message;
    }
    part("cancel").disabled = false;
  });
  part("play").addEventListener("click", () => (entry.hls ? stop(entry) : play(entry)));
  part("locks").addEventListener("click", () => {
    const open = part("evidence").hidden;
    part("evidence").hidden = !open;
    part("locks").setAttribute("aria-expanded", String(open));
  });
  cards.set(id, entry);
  if (atTop) $("jobs").prepend(root);
  else $("jobs").append(root);
  $("no-jobs").hidden = true;
  return entry;
}

function show(job, atTop = true) {
  const entry = card(job.id, atTop);
  const { part } = entry;
  entry.job = job;
  part("state").textContent = job.state;
  part("state").dataset.state = job.state;
  part("name").textContent = job.spec.external_id || job.spec.labels?.name || names.get(job.spec.input.upload) || job.spec.preset;
  const made = new Date(job.created_at);
  const time = entry.root.querySelector("time");
  time.dateTime = job.created_at;
  time.textContent = Number.isNaN(made.getTime()) ? "" : made.toLocaleString();
  progress(entry, job.progress, job.state);
  const failure = job.failure;
  part("failure").hidden = !failure;
  if (failure) {
    part("code").textContent = failure.code;
    part("why").textContent = asOnThisPage(failure.message);
    part("remedy").textContent = asOnThisPage(remedies[failure.code] || "");
  }
  describe(entry);
  evidence(entry);
  part("cancel").hidden = FINAL.has(job.state) || job.state === "canceling";
  part("play").hidden = !master(job);
}

// Messages and remedies are written for the API; here the same is a box to tick.
function asOnThisPage(text) {
  return text.replace(/`?"decoders": "legacy"`?/g, "“old formats too”");
}

function progress(entry, now, state) {
  const { part } = entry;
  part("going").hidden = FINAL.has(state);
  const bar = entry.root.querySelector("progress");
  if (state === "queued") bar.removeAttribute("value");
  else bar.value = now.percent;
  const running = entry.job?.tasks.find((task) => task.state === "running");
  const facts = [state === "queued" ? "waiting for a worker" : `${Math.floor(now.percent)} %`];
  if (running) facts.push(running.kind);
  if (now.frames > 0) facts.push(`${now.frames} frames`);
  if (now.speed > 0) facts.push(`${now.speed.toFixed(1)}× real time`);
  if (now.eta_s !== undefined) facts.push(`${clock(now.eta_s)} left`);
  part("how").textContent = facts.join(" · ");
}

function describe(entry) {
  const { job, part } = entry;
  const facts = [];
  if (job.media) {
    const video = job.media.streams.map((stream) => stream.kind.video).find(Boolean);
    const turned = video && video.rotation % 180 !== 0;
    if (video) facts.push(turned ? `${video.height} × ${video.width}` : `${video.width} × ${video.height}`);
    facts.push([...new Set(job.media.streams.map((stream) => stream.codec))].join(", "));
    if (job.media.duration_ms) facts.push(clock(job.media.duration_ms / 1000));
    facts.push(bytes(job.media.size));
  }
  if (job.outputs.length > 0) {
    const total = job.outputs.reduce((sum, output) => sum + output.size, 0);
    const renditions = job.outputs.filter((output) => output.content_type.startsWith("video/"));
    facts.push(`→ ${renditions.map((output) => output.name.replace(/^video-|\.[^.]*$/g, "")).join(", ")} (${bytes(total)})`);
  }
  part("media").hidden = facts.length === 0;
  part("media").textContent = facts.join(" · ");
}

const COLUMNS = ["task", "profile", "seccomp filters", "no-new-privs", "uid", "capabilities", "Landlock", "CPU", "memory"];

function evidence(entry) {
  const { job, part } = entry;
  const tasks = job.tasks.filter((task) => task.evidence);
  part("locks").hidden = tasks.length === 0;
  const table = document.createElement("table");
  const head = element("tr", "", element("thead", "", table));
  for (const column of COLUMNS) element("th", column, head).scope = "col";
  const body = element("tbody", "", table);
  for (const { kind, evidence: e } of tasks) {
    const row = element("tr", "", body);
    const { observed: o, self_reported: s, usage: u } = e;
    for (const text of [
      kind,
      `${e.profile} ${e.policy_digest.slice(0, 8)}`,
      `${o.seccomp_filters}`,
      o.no_new_privs ? "yes" : "NO",
      `${o.uid}`,
      o.capabilities === 0 ? "none" : `0x${o.capabilities.toString(16)}`,
      s.landlock_abi ? `ABI ${s.landlock_abi}, open ${s.landlock_refused_open ? "refused" : "NOT refused"}` : "NONE",
      u ? `${(u.cpu_ms / 1000).toFixed(1)} s` : "",
      u ? bytes(u.peak_memory) : "",
    ]) element("td", text, row);
  }
  const note = document.createElement("p");
  note.className = "dim";
  note.textContent = "Seen by the supervisor from outside before the first media byte, except Landlock, which the process reports itself.";
  part("evidence").replaceChildren(table, note);
}

// Several events in a row lead to one reading, and one more when something came meanwhile.
async function read(id) {
  const entry = card(id, true);
  if (entry.reading) {
    entry.again = true;
    return;
  }
  entry.reading = true;
  try {
    do {
      entry.again = false;
      show(await json(`/v1/jobs/${id}`));
    } while (entry.again);
  } catch {
    // The next event, or the reconnect, reads it again.
  } finally {
    entry.reading = false;
  }
}

async function list(after) {
  const page = await json(`/v1/jobs?limit=30${after ? `&after=${after}` : ""}`);
  // The first page comes again after a reconnect: newest last, so that each new one ends on top.
  if (after) page.jobs.forEach((job) => show(job, false));
  else if (cards.size === 0) page.jobs.forEach((job) => show(job, false));
  else page.jobs.reverse().forEach((job) => show(job));
  if (after || older === null) older = page.next ?? undefined;
  $("more").hidden = !older;
}

// --- playing -----------------------------------------------------------------------------------------------------------

function master(job) {
  if (job.state !== "succeeded") return undefined;
  const lists = job.outputs.filter((output) => output.name.endsWith(".m3u8"));
  return lists.find((output) => output.name === "master.m3u8") || lists[0];
}

function play(entry) {
  const { job, part } = entry;
  if (!window.Hls?.isSupported()) {
    part("screen").textContent = `hls.js is not built in, and the browser's own player cannot send the key. Run: mpegflow download ${job.id}`;
    return;
  }
  const video = document.createElement("video");
  video.controls = true;
  video.playsInline = true;
  part("screen").replaceChildren(video);
  const hls = new window.Hls({
    enableWorker: false,
    xhrSetup: (xhr, url) => {
      // The key is for this broker alone, wherever a playlist might point.
      if (new URL(url, location.href).origin === location.origin) xhr.setRequestHeader("authorization", authorization());
    },
  });
  hls.on(window.Hls.Events.ERROR, (_, { fatal, type, details }) => {
    if (!fatal) return;
    if (type === window.Hls.ErrorTypes.MEDIA_ERROR) return hls.recoverMediaError();
    stop(entry);
    part("screen").textContent = `It cannot be played: ${details}.`;
  });
  hls.loadSource(master(job).url);
  hls.attachMedia(video);
  entry.hls = hls;
  part("play").textContent = "Close";
  video.play().catch(() => {});
  video.focus();
}

function stop(entry) {
  entry.hls?.destroy();
  entry.hls = null;
  entry.part("screen").replaceChildren();
  entry.part("play").textContent = "Play";
}

// --- uploading ---------------------------------------------------------------------------------------------------------

async function transcode(file) {
  const row = element("li", "", $("uploads"));
  const name = plain(file.name);
  element("span", name, row);
  const bar = element("progress", "", row);
  bar.max = Math.max(file.size, 1);
  bar.value = 0;
  bar.setAttribute("aria-label", `Upload of ${name}`);
  const text = element("span", bytes(file.size), row);
  const video = {};
  if ($("height").value) video.max_height = Number($("height").value);
  const spec = { version: 1, preset: $("preset").value || "web", decoders: $("legacy").checked ? "legacy" : "core", video };
  if (name) spec.labels = { name };
  try {
    const id = await upload(file, name, (sent) => {
      bar.value = sent;
      text.textContent = `${bytes(sent)} of ${bytes(file.size)}`;
    });
    names.set(id, name);
    show(await json("/v1/jobs", { method: "POST", body: { ...spec, input: { upload: id } } }));
    row.remove();
  } catch (error) {
    bar.remove();
    text.className = "bad";
    text.textContent = error.message;
  }
}

async function files(all) {
  // One after the other: together they would only share the same line.
  for (const file of all) await transcode(file);
}

$("file").addEventListener("change", () => {
  files([...$("file").files]);
  $("file").value = "";
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") files([...event.dataTransfer.files]);
  });
}
$("submit").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", () => list(older).catch((error) => { $("link").textContent = error.message; }));

// --- the session -------------------------------------------------------------------------------------------------------

function ask(why) {
  session?.abort();
  for (const id of ["submit", "jobs-section", "forget"]) $(id).hidden = true;
  $("sign-in").hidden = false;
  $("sign-in-error").textContent = why;
  $("link").textContent = "";
  $("key").focus();
}

async function start() {
  session?.abort();
  session = new AbortController();
  try {
    const presets = await json("/v1/presets");
    $("preset").replaceChildren(...presets.map((preset) => {
      const option = element("option", preset.name);
      option.value = preset.name;
      option.title = preset.description;
      return option;
    }));
    remedies = await (await fetch("/remedies.json")).json();
    $("sign-in").hidden = true;
    for (const id of ["submit", "jobs-section", "forget"]) $(id).hidden = false;
    await list();
    await follow(
      (event) => {
        const entry = cards.get(event.job);
        if (event.kind === "progress" && entry?.job) progress(entry, (entry.job.progress = event.progress), entry.job.state);
        else read(event.job);
      },
      (up) => {
        $("link").textContent = up ? "live" : "connection lost, trying again…";
        // What happened while it was down.
        if (up) list().catch(() => {});
      },
      session.signal,
    );
  } catch (error) {
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
      setKey(null);
      ask("The broker does not accept this key.");
    } else {
      $("link").textContent = `${error.message}; trying again…`;
      setTimeout(start, 3_000);
    }
  }
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey($("key").value.trim());
  $("key").value = "";
  start();
});
$("forget").addEventListener("click", () => {
  setKey(null);
  location.reload();
});
window.addEventListener("hashchange", () => { if (loadKey()) start(); });

if (loadKey()) start();
else ask("");
