// The caption area: settled words stay, the open segment's stable and volatile parts are told apart.
const UNSURE = 0.5;

export class Captions {
  segments = []; // that are settled: lists of {word, start, end, confidence}

  constructor(frame, text, placeholder) {
    Object.assign(this, { frame, text, placeholder });
    this.settled = this.text.appendChild(document.createElement("span"));
    this.open = this.text.appendChild(document.createElement("span"));
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

  refresh() {
    this.placeholder.hidden = !this.empty;
    this.frame.scrollTop = this.frame.scrollHeight;
  }
}

function span(text, kind) {
  const element = document.createElement("span");
  element.className = kind;
  element.textContent = text;
  return element;
}
