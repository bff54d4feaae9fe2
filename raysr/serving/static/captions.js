// The caption area: settled words stay, the open segment's stable and volatile parts are told apart.
const UNSURE = 0.5;
const NEAR = 40; // pixels from the end, at which the end is being read

export class Captions {
  segments = []; // that are settled: lists of {word, start, end, confidence}
  height = 0; // of the text when it was last shown

  constructor(frame, text, placeholder) {
    Object.assign(this, { frame, text, placeholder });
    this.settled = this.text.appendChild(document.createElement("span"));
    this.open = this.text.appendChild(document.createElement("span"));
    this.settled.setAttribute("aria-live", "polite");
    this.open.setAttribute("aria-hidden", "true"); // it changes several times a second
  }

  get empty() {
    return !this.segments.length && !this.open.textContent;
  }

  // Show one of Deepgram's results; times count from `offset`, the seconds of streams before.
  show({ is_final, raysr, channel }, offset) {
    if (is_final) this.settle(channel.alternatives[0].words, offset);
    else this.open.replaceChildren(raysr.stable, span(raysr.volatile, "volatile"));
    this.refresh();
  }

  settle(words, offset = 0) {
    this.open.replaceChildren();
    if (!words.length) return;
    this.segments.push(words.map((word) => ({ ...word, start: word.start + offset, end: word.end + offset })));
    const segment = this.settled.appendChild(span("", "segment"));
    for (const { word, confidence } of words) {
      const shown = span(word, confidence < UNSURE ? "unsure" : "");
      shown.title = `confidence ${confidence.toFixed(2)}`;
      segment.append(shown, " ");
    }
    this.refresh();
  }

  note(text) {
    this.open.replaceChildren(span(text, "volatile"));
    this.refresh();
  }

  clear() {
    this.segments = [];
    this.settled.replaceChildren();
    this.open.replaceChildren();
    this.refresh();
  }

  // Follow the text, unless somebody reads further up.
  refresh() {
    const { frame } = this;
    const follows = frame.scrollTop + frame.clientHeight >= this.height - NEAR;
    this.placeholder.hidden = !this.empty;
    if (follows) frame.scrollTop = frame.scrollHeight;
    this.height = frame.scrollHeight;
  }
}

function span(text, kind) {
  const element = document.createElement("span");
  element.className = kind;
  element.textContent = text;
  return element;
}
