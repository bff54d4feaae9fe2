"""What a model is made of: the encoder, the attention decoder and how their losses are mixed."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from raysr.config import Config, Slot

ENCODERS = Slot(
    "encoder",
    {
        "conformer": "raysr.model.conformer:ConformerEncoder",
        "transformer": "raysr.model.transformer:TransformerEncoder",
    },
)
DECODERS = Slot(
    "decoder",
    {
        "transformer": "raysr.model.transformer_decoder:TransformerDecoder",
        "lstm": "raysr.model.lstm_decoder:LstmDecoder",
    },
)


class EncoderConfig(Config):
    """The encoder; sizes are in frames after subsampling unless said otherwise."""

    kind: str = "conformer"
    dim: int = Field(default=128, ge=2)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    feed_forward: int = Field(default=256, ge=1)
    kernel: int = Field(default=11, ge=1)
    """Width of the Conformer's depthwise convolution, which is causal when ``dynamic_chunk`` is set."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    subsampling: Literal[2, 4, 6, 8] = 4
    subsampling_channels: int = Field(default=32, ge=1)
    dynamic_chunk: bool = True
    """Train with chunk masks of random size, so that the same weights also stream."""
    max_chunk: int = Field(default=25, ge=1)
    """The largest chunk that training samples."""
    full_context_share: float = Field(default=0.5, ge=0, le=1)
    """The share of training batches that see the whole utterance."""
    left_chunks: int = Field(default=-1, ge=-1)
    """How many chunks to the left a training batch may see; -1 is all."""

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        ENCODERS.resolve(kind)
        return kind

    @model_validator(mode="after")
    def _consistent(self) -> "EncoderConfig":
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim ({self.dim}) must be a multiple of 2 x heads ({2 * self.heads})")
        if not self.dynamic_chunk and self.kernel % 2 == 0:
            raise ValueError(f"kernel ({self.kernel}) must be odd unless dynamic_chunk is set")
        return self


class DecoderConfig(Config):
    """The attention decoder; its width is the encoder's."""

    kind: str = "transformer"
    layers: int = Field(default=1, ge=1)
    reverse_layers: int = Field(default=0, ge=0)
    """Layers of a second decoder that reads right to left (U2++); it shares the encoder only. 0 builds none."""
    heads: int = Field(default=4, ge=1)
    """Of the Transformer, as is ``feed_forward``."""
    feed_forward: int = Field(default=256, ge=1)
    location_filters: int = Field(default=10, ge=1)
    """Of the LSTM's attention over where it looked before, as is ``location_kernel``."""
    location_kernel: int = Field(default=31, ge=1)
    """The width of those filters in frames, odd."""
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        DECODERS.resolve(kind)
        return kind

    @field_validator("location_kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"location_kernel ({kernel}) must be odd")
        return kernel


class ModelConfig(Config):
    """Hybrid CTC/attention: loss = ctc_weight x CTC + (1 - ctc_weight) x attention.

    Attention is (1 - reverse_weight) x left to right + reverse_weight x right to left, as in U2++
    (Wu et al. 2021, arXiv:2106.05642).
    """

    mel_bins: int = Field(default=80, ge=16)
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    ctc_weight: float = Field(default=0.7, ge=0, le=1)
    """1 builds no attention decoder, 0 no CTC head."""
    reverse_weight: float = Field(default=0.0, ge=0, lt=1)
    """Above 0 if and only if there are ``decoder.reverse_layers``."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.decoder.kind == "transformer" and self.encoder.dim % self.decoder.heads:
            raise ValueError(
                f"encoder.dim ({self.encoder.dim}) must be a multiple of decoder.heads ({self.decoder.heads})"
            )
        if self.reverse_weight > 0 and not self.decoder.reverse_layers:
            raise ValueError(
                f"reverse_weight ({self.reverse_weight}) needs a right-to-left decoder: "
                "set decoder.reverse_layers"
            )
        if self.decoder.reverse_layers and self.reverse_weight == 0:
            raise ValueError("reverse_weight 0 would not train the decoder.reverse_layers: try 0.3")
        return self
