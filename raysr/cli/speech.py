"""`raysr transcribe` and `raysr serve`: turn speech into text, here or for others."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raysr.cli.common import ModelOption, Overrides, PoolOption
from raysr.model.chunking import CHUNKING, Chunking

if TYPE_CHECKING:
    from raysr.pool import Recogniser


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("transcribe")(transcribe)
    app.command("serve")(serve)


def transcribe(
    file: Annotated[Path, typer.Argument(help="An audio file, in any format FFmpeg reads.")],
    pool: PoolOption,
    model: ModelOption = "latest",
    chunk: int = typer.Option(
        CHUNKING.size,
        help="Recognise as a stream would, so many 40 ms frames at a time; -1 hears the whole file at once.",
    ),
    left_chunks: int = typer.Option(
        CHUNKING.left, min=-1, help="Chunks of the past the model may look at; -1 for all."
    ),
    lookahead: int = typer.Option(
        CHUNKING.lookahead, min=0, help="Frames beyond a chunk the model may look at."
    ),
    phrase: Annotated[
        list[str] | None,
        typer.Option(help="A phrase to expect, `text` or `text:boost`; may be given several times."),
    ] = None,
    as_json: bool = typer.Option(False, "--json", help="Print segments and words with their times as JSON."),
) -> None:
    """Transcribe an audio file on this machine, without Ray.

    The text is the one that the endpoint gives for a live stream of the same audio, unless `--chunk` is -1.

    Example: `raysr transcribe meeting.wav --pool runs/demo/pool`
    """
    from raysr.cli.common import pick_entry
    from raysr.decode.phrases import read_phrases
    from raysr.pool import load_entry

    if chunk == 0 or chunk < -1:
        raise typer.BadParameter(
            "a chunk is at least one frame; -1 hears the whole file at once", param_hint="--chunk"
        )
    recogniser = load_entry(pick_entry(pool, model))
    phrases = read_phrases(phrase or [], recogniser.config.decode.phrase_boost)
    if chunk < 0:
        finals = _whole(recogniser, file, phrases)
    else:
        finals = _streamed(recogniser, file, Chunking(chunk, left_chunks, lookahead), phrases)
    if as_json:
        typer.echo(
            json.dumps({"text": _text(finals), "segments": [_segment(final) for final in finals]}, indent=2)
        )
    else:
        typer.echo(_text(finals))


def serve(
    pool: PoolOption,
    host: str = typer.Option("127.0.0.1", help="0.0.0.0 lets other machines in."),
    port: int = typer.Option(8000, min=1, max=65535, help="Where HTTP and WebSocket clients connect."),
    model: str = typer.Option(
        "latest", help="`latest` follows the pool as it grows; a name stays with that entry."
    ),
    overrides: Overrides = None,
) -> None:
    """Serve a model pool over HTTP and WebSocket until Ctrl-C; a new entry goes live without a restart.

    Example: `raysr serve --pool runs/demo/pool --port 8000 chunk_size=8 limits.sessions=64 keys=keys.txt`
    """
    import threading

    from raysr.cluster import connect
    from raysr.config import apply_overrides
    from raysr.serving import run
    from raysr.serving.settings import ServingConfig

    data: dict[str, Any] = {"pool": str(pool.absolute()), "entry": None if model == "latest" else model}
    config = ServingConfig.parse(apply_overrides(data, overrides or []), "serve")
    if config.keys is None and host not in {"127.0.0.1", "::1", "localhost"}:
        typer.echo(f"note: whoever reaches {host}:{port} may use it; keys=FILE asks for API keys", err=True)
    try:
        with connect() as connection:
            url = run.start(config, host, port)
            try:
                typer.echo(f"{url}  live captions; POST {url}/v1/audio/transcriptions; Ctrl-C stops")
                threading.Event().wait()
            finally:
                run.stop(connection)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


def _streamed(
    recogniser: "Recogniser", file: Path, chunking: Chunking, phrases: Mapping[str, float]
) -> list[Any]:
    """Return the finals of a file that is heard as it is decoded: an hour takes no more memory than a minute."""
    from raysr.audio.files import decode_blocks
    from raysr.stream.events import Final
    from raysr.stream.session import Session
    from raysr.stream.streaming_model import StreamingModel

    session = Session(StreamingModel(recogniser, chunking=chunking), phrases=phrases)
    heard = (session.push(block) for block in decode_blocks(file))
    finals = [event for events in heard for event in events if isinstance(event, Final) and event.text]
    return finals + [event for event in session.finish() if isinstance(event, Final) and event.text]


def _whole(recogniser: "Recogniser", file: Path, phrases: Mapping[str, float]) -> list[Any]:
    """Return the finals of a file of which every frame sees all."""
    import torch

    from raysr.audio.fbank import Fbank
    from raysr.audio.files import decode
    from raysr.decode.events import Final
    from raysr.decode.recognise import recognise_masked

    r = recogniser
    features = Fbank(r.config.fbank)(torch.from_numpy(decode(file)))  # (T, 80)
    parts = r.model, r.tokeniser, r.lm, features
    events = recognise_masked(*parts, -1, -1, 0, r.config.decode, phrases)
    return [event for event in events if isinstance(event, Final)]


def _text(finals: Any) -> str:
    return " ".join(final.text for final in finals)


def _segment(final: Any) -> dict[str, Any]:
    return {
        "start": round(final.start, 3),
        "end": round(final.end, 3),
        "text": final.text,
        "confidence": round(final.confidence, 4),
        "words": [asdict(word) for word in final.words],
    }
