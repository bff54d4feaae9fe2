// The microphone as packets of 16-bit samples; the sample rate is the audio context's own.
export class Microphone {
  static async open(onPacket) {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: false, autoGainControl: true },
    });
    const context = new AudioContext();
    try {
      await context.resume();
      await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    } catch (error) {
      stream.getTracks().forEach((track) => track.stop());
      await context.close();
      throw error;
    }
    return new Microphone(stream, context, onPacket);
  }

  constructor(stream, context, onPacket) {
    Object.assign(this, { stream, context, rate: context.sampleRate });
    this.node = new AudioWorkletNode(context, "packets", { numberOfOutputs: 0 });
    this.ended = new Promise((resolve) => {
      this.node.port.onmessage = ({ data }) => (data.ended ? resolve() : onPacket(data.pcm, data.peak));
    });
    context.createMediaStreamSource(stream).connect(this.node);
  }

  // Hand over what the last packet holds so far, then let the microphone go.
  async close() {
    this.node.port.postMessage("end");
    await this.ended;
    this.stream.getTracks().forEach((track) => track.stop());
    await this.context.close();
  }
}
