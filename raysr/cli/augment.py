"""`raysr augment`: an audio file made harder, to hear what becomes of it, or to test a model with."""

from pathlib import Path
from typing import Annotated

import typer

from raysr.cli.common import Overrides


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("augment")(augment)


def augment(
    file: Annotated[Path, typer.Argument(help="An audio file, in any format FFmpeg reads.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the result goes: a WAV file, 16 kHz, mono.")
    ],
    effects: Overrides = None,
) -> None:
    """Put speech into a room, behind music or babble, through a codec and a bad line, or make it faster.

    Effects are `key=value`: `speed`, `tempo`, `room.` (`rt60`, `distance`, `volume`) or `walk.` (`near`, `far`, `rt60`,
    `volume`), `noise.` (`snr_db`, `colour` or `files`), `music.` (`snr_db`, `files`), `babble.` (`snr_db`, `files`,
    `talkers`), `clip`, `band.` (`low`, `high`), `codec.` (`kind`: alaw, mulaw, opus, mp3, or gsm for its band alone;
    `bit_rate`), `packets.` (`share`, `burst`, `concealment`: repeat or silence), `gain_db`, and the `seed` of it all.
    `files` is a recording or a folder of them. Metres, seconds, Hz, dB, shares from 0 to 1.

    Example: `raysr augment speech.wav -o far.wav room.rt60=0.5 room.distance=3 music.snr_db=5 codec.kind=opus`
    """
    from raysr.audio.augment import Augmentation
    from raysr.audio.augment import augment as augmented
    from raysr.audio.encode import wav_bytes
    from raysr.audio.files import decode
    from raysr.config import apply_overrides
    from raysr.corpus.disk import replacing

    recipe = Augmentation.parse(apply_overrides({}, effects or []), "augment")
    with replacing(out) as target:
        target.write(wav_bytes(augmented(decode(file), recipe)))
    typer.echo(str(out))
