"""A small neural recogniser as teacher: Moonshine Voice, whose wheel carries an English model.

Nothing is downloaded. Its library gives no scores, and now and then nothing at all for a short clip: agreement with
another teacher says when to believe it.
"""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

from raysr.config import Config as Options
from raysr.errors import ConfigError
from raysr.teachers.base import TeacherContext, TeacherOutput, Waveform, one_by_one
from raysr.teachers.weights import weights_hash
from raysr.text.normalise import normalise


class Moonshine:
    """Moonshine's offline model."""

    class Config(Options):
        """``model`` names a folder of the wheel's assets; ``arch`` is the architecture that is in it."""

        model: str = "tiny-en"
        arch: str = "TINY"

    name = "moonshine"

    def __init__(self, config: Config, context: TeacherContext) -> None:
        try:
            from moonshine_voice.moonshine_api import ModelArch
            from moonshine_voice.transcriber import Transcriber
            from moonshine_voice.utils import get_model_path
        except ModuleNotFoundError:
            raise ConfigError(
                "teacher 'moonshine' needs its package: pip install 'raysr[teachers]'"
            ) from None
        folder = get_model_path(config.model)
        if not folder.is_dir() or config.arch not in ModelArch.__members__:
            raise ConfigError(
                f"teacher 'moonshine': no model '{config.model}' of kind '{config.arch}' in the package"
            )
        self.version = f"{metadata.version('moonshine-voice')}+{weights_hash(folder)}"
        # not identify_speakers=false, which saves a fifth of the time: freeing such a transcriber crashes 0.0.49
        self._transcriber: Any = Transcriber(
            str(folder), ModelArch[config.arch], options={"return_audio_data": "false"}
        )

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        return one_by_one(self._recognise, waveforms)

    def _recognise(self, waveform: Waveform) -> TeacherOutput:
        transcript = self._transcriber.transcribe_without_streaming(waveform.tolist(), 16000)
        return TeacherOutput(text=normalise(" ".join(line.text for line in transcript.lines)))
