// The caption area: settled words stay, the open segment's stable and volatile parts are told apart.
const UNSURE = 0.5;

export class Captions {
  constructor(frame, text, placeholder) {
    Object.assign(this, { frame, text, placeholder });
    this.settled = this.text.appendChild(document.createElement("span"));
    this.open = this.text.appendChild(document.createElement("span"));
  }

  get empty() {
    return !this.settled.textContent && !this.open.textContent;
  }

  get plain() {
    return this.text.innerText.trim();
  }

  show(message) {
    if (message.is_final) {
      this.settle(message.channel.alternatives[0]);
    } else {
      this.open.replaceChildren(message.raysr.stable, span(message.raysr.volatile, "volatile"));
    }
    this.refresh();
  }

  settle({ transcript, words }) {
    this.open.replaceChildren();
    if (!transcript) return;
    const segment = this.settled.appendChild(span("", "segment"));
    for (const { word, confidence } of words) {
      const shown = span(word, confidence < UNSURE ? "unsure" : "");
      shown.title = `confidence ${confidence.toFixed(2)}`;
      segment.append(shown, " ");
    }
  }

  append(text) {
    this.settled.append(span(text, "segment"));
    this.refresh();
  }

  note(text) {
    this.open.replaceChildren(span(text, "volatile"));
    this.refresh();
  }

  clear() {
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
