"""The client of `benchmarks.chaos`: it sends one recording again and again, as a file and as a live stream in turns.

python -m benchmarks.chaos_client URL SPEECH TOLD

TOLD gets a JSON line each time: when it began, how (``file`` or ``stream``), and the text, or the error.
"""

import itertools
import json
import sys
import time
from pathlib import Path

from raysr.corpus.disk import append_row
from raysr.errors import RaysrError
from raysr.serving.client import transcribe_http, transcribe_ws

PAUSE_S = 0.5


def main() -> None:
    url, speech, told = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    for number in itertools.count():
        how = ("file", "stream")[number % 2]
        row: dict[str, object] = {"began": time.time(), "how": how}
        try:
            found = transcribe_http(url, speech, 60.0) if how == "file" else transcribe_ws(url, speech, 0.3)
            row |= {"text": found.text, "model": found.model}
        except RaysrError as error:
            row["error"] = str(error)
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"
        append_row(told, {**row, "ended": time.time()})
        print(json.dumps(row), flush=True)
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
