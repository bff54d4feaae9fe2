// Live captions from the microphone, and transcripts of files.
import { Captions } from "./captions.js";
import { Endpoint } from "./endpoint.js";
import { Microphone } from "./microphone.js";
import { FORMATS } from "./transcript.js";

const RETRIES = [1, 2, 4, 8, 16]; // seconds, after a server that restarts or has no place
const AGAIN = new Set([1006, 1011, 1012, 1013]);
const EARLY = 10; // seconds of speech that wait for the connection
const LAST_WORDS = 10; // seconds that the server has for them

const $ = (id) => document.getElementById(id);
const captions = new Captions($("captions"), $("text"), $("placeholder"));
const endpoint = new Endpoint();
let live = null;
let heard = 0; // seconds of streams that have ended

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function facts({ model, lag, delay, seconds }) {
  if (model !== undefined) $("model").textContent = model;
  if (lag !== undefined) $("lag").textContent = `${lag.toFixed(1)} s`;
  if (delay !== undefined) $("delay").textContent = `${delay.toFixed(1)} s`;
  if (seconds !== undefined) $("heard").textContent = `${seconds.toFixed(1)} s`;
}

function changed() {
  for (const id of ["copy", "clear", "txt", "srt", "vtt"]) $(id).disabled = !captions.segments.length;
}

function phrases() {
  return $("phrases").value.split("\n").map((line) => line.trim()).filter(Boolean);
}

function askForKey() {
  $("keys").hidden = false;
  $("key").focus();
}

function show(message) {
  if (message.type === "Error") {
    live.refused = message;
    problem(message.description);
    if (message.variant === "INVALID_AUTH") askForKey();
  } else if (message.type === "Metadata") {
    facts({ seconds: live.offset + message.duration });
  } else if (message.type === "Results") {
    const end = message.start + message.duration;
    captions.show(message, live.offset);
    live.end = Math.max(live.end, end);
    live.tries = 0;
    facts({
      model: message.metadata.model_info.version,
      lag: message.raysr.lag,
      delay: Math.max(0, live.sent - end),
      seconds: live.offset + end,
    });
    changed();
  }
}

// What a socket of a stream that has ended still says is heard by nobody.
function connect() {
  const mine = live;
  Object.assign(mine, { offset: heard, end: 0, sent: 0, refused: null, early: [] });
  const socket = endpoint.listen({
    rate: mine.microphone.rate,
    phrases: phrases(),
    isPrivate: $("private").checked,
    onOpen: () => mine.early.splice(0).forEach((pcm) => send(mine, pcm)),
    onMessage: (message) => live === mine && mine.socket === socket && show(message),
    onClose: (code) => live === mine && mine.socket === socket && closed(code),
  });
  mine.socket = socket;
}

function send(stream, pcm) {
  stream.socket.send(pcm);
  stream.sent += pcm.byteLength / 2 / stream.microphone.rate;
}

// Hear a packet of the microphone; what is said before the connection stands waits for it.
function hear(pcm) {
  if (live?.socket?.readyState === WebSocket.OPEN) send(live, pcm);
  else if (live?.socket?.readyState === WebSocket.CONNECTING) {
    live.early.push(pcm);
    const seconds = (packets) => packets.reduce((sum, one) => sum + one.byteLength / 2, 0) / live.microphone.rate;
    while (seconds(live.early) > EARLY) live.early.shift();
  }
}

// A server that restarts or is full is tried again, while the microphone stays open; anything else ends the stream.
function closed(code) {
  heard = live.offset + live.end;
  if (live.ending || !AGAIN.has(code) || live.tries >= RETRIES.length) {
    if (!live.ending && !live.refused) problem(`The connection was lost (code ${code}). Press Speak to go on.`);
    end();
    return;
  }
  const wait = RETRIES[live.tries++];
  problem(`${live.refused?.description ?? "The connection was lost"}; trying again in ${wait} s.`);
  live.timer = setTimeout(() => {
    problem("");
    try {
      connect();
    } catch (error) {
      problem(error.message);
      end();
    }
  }, 1000 * wait);
}

async function start() {
  problem("");
  if (!window.isSecureContext || !navigator.mediaDevices) {
    return problem("Browsers give the microphone to secure pages only: open this page over https, or as http://localhost.");
  }
  $("speak").disabled = true;
  try {
    const microphone = await Microphone.open((pcm, peak) => {
      $("level").value = Math.min(1, peak * 1.4);
      hear(pcm);
    });
    live = { microphone, tries: 0 };
    connect();
    $("speak").textContent = "Stop";
    $("speak").classList.add("live");
    $("file").disabled = true;
    $("speak").disabled = false;
  } catch (error) {
    problem(error.name === "NotAllowedError" ? "The microphone was not allowed." : `This did not start: ${error.message}`);
    end();
  }
}

// Let the microphone go, then ask for the last words; the server closes when it has sent them.
async function stop() {
  const mine = live;
  mine.ending = true;
  $("speak").textContent = "Stopping…";
  $("speak").disabled = true;
  clearTimeout(mine.timer);
  await mine.microphone.close();
  if (live !== mine) return;
  if (mine.socket.readyState !== WebSocket.OPEN) return end();
  mine.socket.send(JSON.stringify({ type: "CloseStream" }));
  mine.timer = setTimeout(() => live === mine && end(), 1000 * LAST_WORDS);
}

function end() {
  clearTimeout(live?.timer);
  live?.socket?.close();
  if (live && !live.ending) live.microphone.close();
  live = null;
  $("speak").textContent = "Speak";
  $("speak").classList.remove("live");
  $("speak").disabled = $("file").disabled = false;
  $("level").value = 0;
}

async function upload(file) {
  problem("");
  $("speak").disabled = true;
  captions.note(`${file.name} …`);
  try {
    const { segments, model, seconds } = await endpoint.transcribe(file, phrases(), $("private").checked);
    captions.note("");
    for (const words of segments) captions.settle(words, heard);
    if (!segments.length) problem(`${file.name}: nobody speaks in it.`);
    heard += seconds;
    facts({ model, seconds: heard, lag: 0 });
  } catch (error) {
    problem(error.message);
    if (error.keyWanted) askForKey();
  } finally {
    captions.note("");
    changed();
    $("speak").disabled = false;
  }
}

function save(format) {
  const [type, written] = FORMATS[format];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([written(captions.segments)], { type }));
  link.download = `captions.${format}`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function kept({ audio, text, days }) {
  const what = [audio && "what you say", text && "its text"].filter(Boolean).join(" and ");
  return `This server keeps ${what || "nothing"} for ${days} ${days === 1 ? "day" : "days"}.`;
}

// Only what has changed is written: screen readers read it out each time.
function service(text, kind) {
  if ($("service").textContent !== text) $("service").textContent = text;
  $("service").className = `service ${kind}`;
}

async function health() {
  try {
    const state = await endpoint.health();
    if (state.model) service(`${state.sessions} of ${state.max_sessions} sessions`, "ok");
    else service("no model yet", "bad");
    $("keys").hidden = !state.keys;
    $("keeps").hidden = !state.keeps;
    if (state.keeps) $("kept").textContent = kept(state.keeps);
    if (!live && state.model) facts({ model: state.model });
  } catch {
    service("the server does not answer", "bad");
  }
}

$("speak").onclick = () => (live ? stop() : start());
$("file").onchange = ({ target }) => {
  if (target.files[0]) upload(target.files[0]);
  target.value = "";
};
$("copy").onclick = () => navigator.clipboard?.writeText(FORMATS.txt[1](captions.segments));
$("clear").onclick = () => {
  captions.clear();
  heard = 0;
  changed();
};
for (const format of Object.keys(FORMATS)) $(format).onclick = () => save(format);
$("phrases").value = localStorage.getItem("phrases") ?? "";
$("phrases").closest("details").open = Boolean($("phrases").value);
$("phrases").oninput = ({ target }) => localStorage.setItem("phrases", target.value);
$("key").value = endpoint.key;
$("key").onchange = ({ target }) => endpoint.setKey(target.value.trim());
health();
setInterval(health, 3000);
