// Plays the result beside this page, and says what it is and how it was made. All text comes from files and goes in by
// textContent only.
"use strict";

const $ = (id) => document.getElementById(id);

function cell(row, text) {
  const td = document.createElement("td");
  td.textContent = text;
  row.append(td);
  return td;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? bytes : bytes.toFixed(1)} ${units[unit]}`;
}

function say(text) {
  $("message").textContent = text;
  $("message").hidden = false;
}

function play(master) {
  const video = $("video");
  if (window.Hls && window.Hls.isSupported()) {
    // Without a worker of its own: the policy of this page allows none, and remuxing fMP4 needs none.
    const hls = new window.Hls({ enableWorker: false });
    hls.on(window.Hls.Events.MANIFEST_PARSED, () => {
      hls.levels.forEach((level, index) => {
        const option = document.createElement("option");
        option.value = String(index);
        option.textContent = `${level.height}p`;
        $("quality").append(option);
      });
      $("quality").disabled = false;
    });
    hls.on(window.Hls.Events.LEVEL_SWITCHED, (_, { level }) => {
      const { width, height, bitrate } = hls.levels[level];
      $("now").textContent = `${width} × ${height}, ${(bitrate / 1e6).toFixed(1)} Mbit/s at most`;
    });
    hls.on(window.Hls.Events.ERROR, (_, { fatal, type, details }) => {
      if (!fatal) return;
      if (type === window.Hls.ErrorTypes.MEDIA_ERROR) hls.recoverMediaError();
      else say(`It cannot be played: ${details}.`);
    });
    $("quality").addEventListener("change", () => { hls.currentLevel = Number($("quality").value); });
    hls.loadSource(master);
    hls.attachMedia(video);
  } else if (video.canPlayType("application/vnd.apple.mpegurl")) {
    video.src = master;
  } else {
    say("This browser does not know HLS, and hls.js was not built in. Open the file below in a player such as VLC or mpv.");
  }
}

function locks(job) {
  for (const task of job.tasks) {
    const e = task.evidence;
    if (!e) continue;
    const row = document.createElement("tr");
    cell(row, task.kind);
    cell(row, e.profile);
    const o = e.observed;
    cell(row, `${o.seccomp_filters} seccomp filters, no-new-privs ${o.no_new_privs ? "on" : "OFF"}, uid ${o.uid}, capabilities ${o.capabilities === 0 ? "none" : "0x" + o.capabilities.toString(16)}`);
    const s = e.self_reported;
    cell(row, `Landlock ABI ${s.landlock_abi}, open ${s.landlock_refused_open ? "refused" : "NOT refused"}, environment ${s.environment_empty ? "empty" : "NOT empty"}`);
    $("locks").tBodies[0].append(row);
  }
}

async function main() {
  if (location.protocol === "file:") {
    say("A browser does not let a page read the files beside it. Run: mpegflow play FOLDER");
    return;
  }
  const response = await fetch("mpegflow.json");
  if (!response.ok) throw new Error(`mpegflow.json: ${response.status}`);
  const { source, job } = await response.json();
  $("source").textContent = source || job.id;
  document.title = source || job.id;
  for (const output of job.outputs) {
    const row = document.createElement("tr");
    const link = document.createElement("a");
    link.href = encodeURIComponent(output.name);
    link.textContent = output.name;
    cell(row, "").append(link);
    cell(row, size(output.size));
    $("files").tBodies[0].append(row);
  }
  locks(job);
  const lists = job.outputs.filter((output) => output.name.endsWith(".m3u8"));
  const master = lists.find((output) => output.name === "master.m3u8") || lists[0];
  if (master) play(encodeURIComponent(master.name));
  else say("There is no playlist in this folder.");
}

main().catch((error) => say(String(error.message || error)));
