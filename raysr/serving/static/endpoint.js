// This server's two doors: the Deepgram-compatible socket for live audio, the OpenAI-compatible route for files.
const LONGEST = 7000; // letters of a query; servers read no more than 8 KB

export class Refused extends Error {
  constructor(message, keyWanted = false) {
    super(message);
    this.keyWanted = keyWanted;
  }
}

export class Endpoint {
  key = sessionStorage.getItem("key") ?? "";

  setKey(key) {
    this.key = key;
    sessionStorage.setItem("key", key);
  }

  // Open a live stream; `onMessage` gets every message, `onClose` the code it was closed with.
  listen({ rate, phrases, isPrivate, onOpen, onMessage, onClose }) {
    const url = new URL("v1/listen", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.search = new URLSearchParams([
      ["encoding", "linear16"],
      ["sample_rate", rate],
      ["interim_results", true],
      ["mip_opt_out", isPrivate],
      ...phrases.map((phrase) => ["keyterm", phrase]),
    ]);
    if (url.search.length > LONGEST) throw new Refused("there are too many names and terms for live captions");
    // the one place where a browser lets a page put a key that is no address
    const socket = this.key ? new WebSocket(url, ["token", this.key]) : new WebSocket(url);
    socket.onopen = onOpen;
    socket.onmessage = ({ data }) => onMessage(JSON.parse(data));
    socket.onclose = ({ code }) => onClose(code);
    return socket;
  }

  // Transcribe a file; return its segments, each a list of words.
  async transcribe(file, phrases, isPrivate) {
    const form = new FormData();
    form.append("file", file);
    form.append("model", "raysr");
    form.append("response_format", "verbose_json");
    for (const kind of ["word", "segment"]) form.append("timestamp_granularities[]", kind);
    for (const phrase of phrases) form.append("keywords[]", phrase);
    const headers = this.key ? { authorization: `Bearer ${this.key}` } : {};
    const answer = await fetch(`v1/audio/transcriptions?mip_opt_out=${isPrivate}`, { method: "POST", body: form, headers });
    const body = await answer.json();
    if (!answer.ok) throw new Refused(body.error.message, answer.status === 401);
    const segments = body.segments.map(({ start, end }) => body.words.filter((word) => word.start >= start && word.start < end));
    return { segments, model: body.model, seconds: body.duration };
  }

  async health() {
    return (await fetch("healthz")).json();
  }
}
