// Live captions over the Deepgram-compatible socket of this server, and whole recordings over its OpenAI-compatible route.
import { Captions } from "./captions.js";
import { Microphone } from "./microphone.js";

const $ = (id) => document.getElementById(id);
const captions = new Captions($("captions"), $("text"), $("placeholder"));
let live = null;

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function facts({ model, lag, heard }) {
  if (model !== undefined) $("model").textContent = model;
  if (lag !== undefined) $("lag").textContent = `${lag.toFixed(1)} s`;
  if (heard !== undefined) $("heard").textContent = `${heard.toFixed(1)} s`;
}

function changed() {
  $("copy").disabled = $("clear").disabled = captions.empty;
}

function show(message) {
  if (message.type === "Error") return problem(message.description);
  if (message.type === "Metadata") return facts({ heard: message.duration });
  if (message.type !== "Results") return;
  captions.show(message);
  facts({
    model: message.metadata.model_info.version,
    lag: message.raysr.lag,
    heard: message.start + message.duration,
  });
  changed();
}

function listen(rate) {
  const url = new URL("v1/listen", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = new URLSearchParams({ encoding: "linear16", sample_rate: rate, interim_results: true });
  const socket = new WebSocket(url);
  socket.onmessage = ({ data }) => show(JSON.parse(data));
  socket.onclose = ({ code }) => {
    if (code !== 1000 && $("problem").hidden) problem(`The connection was lost (code ${code}). Press Speak to go on.`);
    stop();
  };
  return socket;
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
      if (live?.socket.readyState === WebSocket.OPEN) live.socket.send(pcm);
    });
    live = { microphone, socket: listen(microphone.rate) };
    $("speak").textContent = "Stop";
    $("speak").classList.add("live");
  } catch (error) {
    problem(error.name === "NotAllowedError" ? "The microphone was not allowed." : `The microphone did not start: ${error.message}`);
  } finally {
    $("speak").disabled = false;
  }
}

async function stop() {
  if (!live) return;
  const { microphone, socket } = live;
  $("speak").textContent = "Speak";
  $("speak").classList.remove("live");
  await microphone.close();
  live = null;
  $("level").value = 0;
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "CloseStream" }));
}

async function upload(file) {
  problem("");
  const form = new FormData();
  form.append("file", file);
  form.append("model", "raysr");
  $("speak").disabled = true;
  captions.note(`${file.name} …`);
  try {
    const answer = await fetch("v1/audio/transcriptions", { method: "POST", body: form });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error.message);
    captions.append(body.text || "(no speech)");
    facts({ model: body.model, heard: body.usage.seconds, lag: 0 });
  } catch (error) {
    problem(error.message);
  } finally {
    captions.note("");
    changed();
    $("speak").disabled = false;
  }
}

async function health() {
  try {
    const state = await (await fetch("healthz")).json();
    $("service").textContent = state.model ? `${state.sessions} of ${state.max_sessions} sessions` : "no model yet";
    $("service").className = `service ${state.model ? "ok" : "bad"}`;
    if (!live && state.model) facts({ model: state.model });
  } catch {
    $("service").textContent = "the server does not answer";
    $("service").className = "service bad";
  }
}

$("speak").onclick = () => (live ? stop() : start());
$("file").onchange = ({ target }) => {
  if (target.files[0]) upload(target.files[0]);
  target.value = "";
};
$("copy").onclick = () => navigator.clipboard?.writeText(captions.plain);
$("clear").onclick = () => {
  captions.clear();
  changed();
};
health();
setInterval(health, 3000);
