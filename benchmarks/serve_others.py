"""What one core does with others' live recognisers, for `benchmarks.serve`: one stream, as fast as it goes.

python -m benchmarks.serve_others pocketsphinx|moonshine

Packets of a tenth of a second are pushed one after the other, with a partial after each, and every turn ends with a
final where its speech ends. Sessions are what a core could hold at real time if it did nothing else: an upper bound,
since streams that come at the same time wait for each other.
"""

import json
import math
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks.joined import RATE
from benchmarks.serve_speech import PACKET, recording
from raysr.evaluate.wer import score
from raysr.text.normalise import normalise

OTHERS = ("pocketsphinx", "moonshine")
SECONDS = 120.0

Push, End = Callable[[np.ndarray], object], Callable[[], str]


def pocketsphinx() -> tuple[Push, End]:
    """Return what pushes samples (N,) int16, and what ends an utterance and returns its text."""
    from pocketsphinx import Decoder

    decoder = Decoder(loglevel="FATAL")
    decoder.start_utt()

    def push(samples: np.ndarray) -> object:
        decoder.process_raw(samples.tobytes(), no_search=False, full_utt=False)
        return decoder.hyp()

    def end() -> str:
        decoder.end_utt()
        found = decoder.hyp()
        decoder.start_utt()
        return found.hypstr if found else ""

    return push, end


def moonshine() -> tuple[Push, End]:
    """As :func:`pocketsphinx`; its stream makes a partial every half second."""
    from moonshine_voice.moonshine_api import ModelArch
    from moonshine_voice.transcriber import Transcriber
    from moonshine_voice.utils import get_model_path

    transcriber = Transcriber(
        str(get_model_path("tiny-en")), ModelArch.TINY, options={"return_audio_data": "false"}
    )
    stream = transcriber.create_stream()
    stream.start()

    def push(samples: np.ndarray) -> object:
        return stream.add_audio((samples / 32768).tolist(), RATE)

    def end() -> str:
        transcript = stream.stop()
        stream.start()
        return " ".join(line.text for line in transcript.lines) if transcript else ""

    return push, end


def main() -> None:
    """Print one JSON object."""
    push, end = {"pocketsphinx": pocketsphinx, "moonshine": moonshine}[sys.argv[1]]()
    played = recording(0, SECONDS)
    ends = [round(turn.end * RATE) for turn in played.turns]
    texts, finals = [""] * len(ends), []
    busy, first = time.process_time(), 0
    for number, last in enumerate(ends):
        while first < last:
            push(played.samples[first : min(first + PACKET, last)])
            first = min(first + PACKET, last)
        asked = time.perf_counter()
        texts[number] = normalise(end())
        finals.append(time.perf_counter() - asked)
    rtf = (time.process_time() - busy) / (first / RATE)
    rows = score([str(n) for n in range(len(ends))], [turn.text for turn in played.turns], texts)
    words = sum(len(turn.text.split()) for turn in played.turns)
    found = {
        "sessions": math.floor(1 / rtf),
        "rtf": round(rtf, 4),
        "finalisation_p50": round(float(np.percentile(finals, 50)), 4),
        "finalisation_p95": round(float(np.percentile(finals, 95)), 4),
        "wer": round(sum(row.words.errors for row in rows) / words, 4),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
