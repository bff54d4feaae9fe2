"""How audio is decoded: kept with a published model, and read by every command that decodes."""

from typing import Literal

from pydantic import Field

from raysr.decode.calibration import Calibration
from raysr.decode.endpoint import EndpointConfig
from raysr.decode.joint_search import JointConfig
from raysr.decode.prefix_beam import PrefixBeamConfig
from raysr.decode.rescore import RescoreConfig


class DecodeConfig(PrefixBeamConfig, RescoreConfig, JointConfig):
    """Options of decoding: those of the searches, of the second pass, and these.

    Attributes:
        method: ``greedy`` (CTC alone, no language model), ``beam``, ``rescore`` (beam, then attention),
            ``attention`` (a beam of the attention decoder) or ``joint`` (CTC and attention in one pass). In a
            stream the last two decode each segment anew once it is closed; captions come from ``beam``.
        nbest: hypotheses handed over for each utterance.
        batch_size: most utterances decoded at once.
        batch_frames: most fbank frames decoded at once, padding included.
        settle: every so many seconds, the tokens of an open segment that are older than this stay as the best
            hypothesis has them, so that captions come to rest; whole utterances are not affected.
        calibration: makes word confidences probabilities; fitted on dev with the other options as they are.
        endpoint: where a stream is cut into segments.
        phrase_boost: what an expected phrase is worth for each of its tokens unless a request says otherwise.
    """

    method: Literal["greedy", "beam", "rescore", "attention", "joint"] = "beam"
    nbest: int = Field(default=8, ge=1)
    batch_size: int = Field(default=32, ge=1)
    batch_frames: int = Field(default=60_000, ge=1)
    settle: float = Field(default=2.0, gt=0)
    calibration: Calibration | None = None
    endpoint: EndpointConfig = EndpointConfig()
    phrase_boost: float = Field(default=1.5, gt=0)
