"""What a serving replica is told: which pool to follow, how to stream, and where its limits are."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator

from raysr.config import Config, apply_overrides
from raysr.export.installed import check_installed
from raysr.model.chunking import CHUNKING, Chunking
from raysr.serving.keeping import KeepConfig
from raysr.serving.logs import LogForm
from raysr.serving.promotion import PromotionConfig

Engine = Literal["torch", "onnx", "onnx-int8"]


class Limits(Config):
    """Where the server says no; each refusal is in the words of the client's protocol."""

    sessions: int = Field(default=32, ge=1)
    """Live streams a replica holds; the next one is told so and closed with 1013 (try again later)."""
    uploads: int = Field(default=8, ge=1)
    """Files a replica transcribes at once; the next one is answered 503 with Retry-After."""
    sessions_per_key: int = Field(default=16, ge=1)
    """Of the live streams, those of one API key."""
    uploads_per_key: int = Field(default=4, ge=1)
    """Of the files, those of one API key; the next one is answered 429 with Retry-After."""
    message_bytes: int = Field(default=1 << 20, ge=1024)
    """The longest WebSocket message; a longer one closes the stream with 1009."""
    queued_seconds: float = Field(default=10.0, gt=0)
    """Audio a stream may have waiting; the socket is not read while there is more."""
    backlog_bytes: int = Field(default=32 << 20, ge=1 << 20)
    """Messages of a stream that may wait to be read where nothing slows their sender down, as behind Ray Serve's own
    proxy; a sender that is further ahead gets its finals and is closed with 1008."""
    idle_seconds: float = Field(default=20.0, gt=0)
    """A stream that sends nothing for so long, not even KeepAlive, gets its finals and is closed with 1011."""
    quiet_seconds: float = Field(default=900.0, gt=0)
    """The same where the protocol has nothing to say that one is still there: Realtime sessions and vosk's."""
    session_seconds: float = Field(default=4 * 3600.0, gt=0)
    """Audio a stream may send in all."""
    send_seconds: float = Field(default=20.0, gt=0)
    """How long a client may take to read one message before it is given up."""
    upload_bytes: int = Field(default=100 << 20, ge=1024)
    """The largest upload; a larger one is answered 413."""
    upload_idle_seconds: float = Field(default=20.0, gt=0)
    """An upload of which nothing comes for so long is answered 408."""
    upload_seconds: float = Field(default=2 * 3600.0, gt=0)
    """The longest uploaded audio, counted while it is decoded; longer is answered 413."""


class UserConfig(Config):
    """What changes in a running replica without a restart: Ray Serve's ``user_config``."""

    entry: str | None = None
    """Serve this pool entry and no other, also an older one; None follows the newest good one."""
    drain: bool = False
    """Take nobody in; running streams get their finals and are closed with 1012 (service restart)."""


class ServingConfig(Config):
    """The configuration of the transcription endpoint."""

    pool: str
    """The model pool to serve from: the folder that a run publishes its students to."""
    language: str | None = Field(default=None, pattern="^[a-z]{2,3}$")
    """The language of its models, such as `en`: requests that name another one are refused, answers name it."""
    entry: str | None = None
    """Serve this pool entry and no other; None follows the newest good one."""
    chunk_size: int = Field(default=CHUNKING.size, ge=1)
    """Encoder frames (40 ms each) recognised at a time: smaller answers sooner, larger hears more context."""
    left_chunks: int = Field(default=CHUNKING.left, ge=0)
    """Chunks of the past that the encoder attends to; many more than training saw make long recordings worse."""
    lookahead: int = Field(default=CHUNKING.lookahead, ge=0)
    """Encoder frames beyond the chunk that are awaited and computed with it, for the words at its end."""
    engine: Engine = "torch"
    """What runs the encoder: torch, or onnxruntime with float32 or int8 weights (`pip install 'raysr[onnx]'`)."""
    promotion: PromotionConfig | None = PromotionConfig()
    """Which newer entries are too much worse to be served; None serves whatever is newest and sound."""
    poll_seconds: float = Field(default=1.0, gt=0)
    """How often the pool is looked at for a newer entry."""
    threads: int = Field(default=1, ge=1)
    """Cores that compute a batch of the encoder; more than one where others use them too makes steps far slower."""
    replicas: int = Field(default=1, ge=1)
    """Replicas that hold sockets, at least."""
    max_replicas: int | None = Field(default=None, ge=1)
    """Replicas at most: Ray Serve adds one when they are fuller than `limits.sessions` times `fill`."""
    fill: float = Field(default=0.7, gt=0, le=1)
    """The share of `limits.sessions` that replicas hold on average before another one is added."""
    grace_seconds: float = Field(default=20.0, ge=0)
    """How long a replica that Ray Serve takes away waits for its streams to end before it cuts them."""
    cpus_per_replica: float = Field(default=1.0, ge=0)
    """Logical CPUs that Ray sets aside for a replica."""
    limits: Limits = Limits()
    keys: str | None = None
    """A file of API keys, a line `name: key` each; it is read again when it changes. None lets everybody in."""
    origins: tuple[str, ...] = ()
    """Web pages of other hosts that may use the endpoint, such as `https://intranet.example`; `*` lets all."""
    keep: KeepConfig | None = None
    """What is kept of users' audio and text; None keeps nothing."""
    logs: LogForm = "text"
    """How a replica writes its log to standard error: lines for people, or `json` for programs."""

    @property
    def chunking(self) -> Chunking:
        """Return how streams are cut."""
        return Chunking(self.chunk_size, self.left_chunks, self.lookahead)

    @field_validator("engine")
    @classmethod
    def _installed(cls, engine: str) -> str:
        if engine != "torch":
            check_installed()
        return engine

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """Read ``key=value`` arguments of ``serve run`` (dotted where nested), or the ``args`` of a YAML file."""
        texts = [f"{key}={value}" for key, value in arguments.items() if isinstance(value, str)]
        data = {key: value for key, value in arguments.items() if not isinstance(value, str)}
        return cls.parse(apply_overrides(data, texts), where="serve arguments")
