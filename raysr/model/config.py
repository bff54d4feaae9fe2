"""What a model is made of: the encoder, the attention decoder and how their losses are mixed."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from raysr.config import Config, Slot

ENCODERS = Slot(
    "encoder",
    {
        "blstm": "raysr.model.lstm:PyramidalBlstmEncoder",
        "conformer": "raysr.model.conformer:ConformerEncoder",
        "lstm": "raysr.model.lstm:LstmEncoder",
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


class AttentionConfig(Config):
    """What a frame may attend to in training; every kind but ``full`` gives a model that also streams."""

    kind: Literal["full", "left", "chunk", "flow", "dynamic"] = "dynamic"
    """``full``: the whole utterance. ``left``: itself and frames before it. ``chunk``: its own chunk and chunks
    before it. ``flow``: also chunks after it, in every layer, so that context flows in through depth.
    ``dynamic``: full or chunks of random size, drawn for every batch: one model for files and for streams.
    """
    chunk: int = Field(default=16, ge=1)
    """The chunk, in frames, of ``chunk`` and ``flow``."""
    left_chunks: int = Field(default=-1, ge=-1)
    """How many chunks to the left are seen (with ``left``: frames); -1 is all."""
    right_chunks: int = Field(default=1, ge=1)
    """How many chunks to the right each layer of ``flow`` sees."""
    min_chunk: int = Field(default=4, ge=1)
    """The smallest chunk that ``dynamic`` draws: smaller ones cost full context more than they help streams."""
    max_chunk: int = Field(default=25, ge=1)
    """The largest one."""
    full_context_share: float = Field(default=0.5, ge=0, le=1)
    """The share of batches of ``dynamic`` that see the whole utterance."""
    dynamic_left: bool = False
    """Whether ``dynamic`` draws the number of chunks to the left too, up to the whole utterance."""

    @model_validator(mode="after")
    def _consistent(self) -> "AttentionConfig":
        if self.min_chunk > self.max_chunk:
            raise ValueError(f"min_chunk ({self.min_chunk}) is above max_chunk ({self.max_chunk})")
        if self.dynamic_left and self.kind != "dynamic":
            raise ValueError(f"dynamic_left is for kind dynamic, not {self.kind}")
        if self.dynamic_left and self.left_chunks >= 0:
            raise ValueError(f"dynamic_left draws left_chunks; leave it at -1, not {self.left_chunks}")
        return self


class EncoderConfig(Config):
    """The encoder; sizes are in frames after subsampling unless said otherwise.

    ``blstm`` and ``lstm`` have no attention: they use ``dim``, ``layers``, ``dropout`` and ``subsampling``,
    ``lstm`` also ``subsampling_channels``.
    """

    kind: str = "conformer"
    dim: int = Field(default=128, ge=2)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    feed_forward: int = Field(default=256, ge=1)
    kernel: int = Field(default=11, ge=1)
    """Width of the Conformer's depthwise convolution: no further right than its chunk; causal with ``left``."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    subsampling: Literal[2, 4, 6, 8] = 4
    subsampling_channels: int = Field(default=32, ge=1)
    attention: AttentionConfig = AttentionConfig()

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        ENCODERS.resolve(kind)
        return kind

    @model_validator(mode="after")
    def _consistent(self) -> "EncoderConfig":
        if self.model_fields_set:  # the defaults are consistent, and looking at an encoder imports torch
            check = getattr(ENCODERS.resolve(self.kind), "check", None)
            if check is None:
                raise ValueError(f"kind: {self.kind} is no raysr.model.encoder.Encoder")
            check(self)
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

    @property
    def structure(self) -> tuple[object, ...]:
        """What weights mean, beyond their shapes: models that differ in it cannot share or average them."""
        encoder, decoder = self.encoder, self.decoder
        return encoder.kind, encoder.heads, encoder.subsampling, decoder.kind, decoder.heads

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
