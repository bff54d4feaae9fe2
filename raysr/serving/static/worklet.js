// Turns the microphone's float blocks into packets of about 100 ms of 16-bit samples, at the context's own rate.
class Packets extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate / 10);
    this.restart();
    this.port.onmessage = () => {
      this.flush();
      this.port.postMessage({ ended: true });
    };
  }

  restart() {
    this.packet = new Int16Array(this.size);
    this.filled = 0;
    this.peak = 0;
  }

  flush() {
    const pcm = this.packet.slice(0, this.filled).buffer;
    this.port.postMessage({ pcm, peak: this.peak }, [pcm]);
    this.restart();
  }

  process([channels]) {
    const samples = channels[0];
    if (!samples) return true;
    for (const sample of samples) {
      const value = Math.max(-1, Math.min(1, sample));
      this.peak = Math.max(this.peak, Math.abs(value));
      this.packet[this.filled++] = value < 0 ? value * 32768 : value * 32767;
      if (this.filled === this.size) this.flush();
    }
    return true;
  }
}

registerProcessor("packets", Packets);
