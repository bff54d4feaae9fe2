"""`raysr augment`: an audio file made harder, to hear what a student is trained on."""

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

    Effects are `key=value`: `seed`, `speed`, `tempo`, `room.rt60`, `room.distance`, `walk.near`, `walk.far`,
    `noise.snr_db`, `noise.colour`, `music.snr_db`, `music.files`, `babble.snr_db`, `babble.files`, `clip`, `band.low`,
    `band.high`, `codec.kind` (alaw, mulaw, gsm, opus, mp3), `codec.bit_rate`, `packets.share`, `packets.burst`,
    `gain_db`. The same seed gives the same bits.

    Example: `raysr augment speech.wav -o far.wav room.rt60=0.5 room.distance=3 music.snr_db=5 codec.kind=opus`
    """
    from raysr.audio.augment import Augmentation
    from raysr.audio.augment import augment as augmented
    from raysr.audio.encode import write_wav
    from raysr.audio.files import decode
    from raysr.config import apply_overrides

    recipe = Augmentation.parse(apply_overrides({}, effects or []), "augment")
    write_wav(out, augmented(decode(file), recipe))
    typer.echo(str(out))
