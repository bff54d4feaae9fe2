"""What a request for a transcription asks for, read from OpenAI's form; what would change nothing is refused. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from starlette.datastructures import FormData, UploadFile

from raysr.serving.openai_errors import Refused
from raysr.serving.openai_transcript import FORMS, GRANULARITIES, Form

NAME_LENGTH = 100

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["file", "model"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "model": {"type": "string", "description": "any name: the endpoint serves one model at a time"},
        "response_format": {"type": "string", "enum": list(FORMS)},
        "timestamp_granularities[]": {
            "type": "array",
            "items": {"type": "string", "enum": list(GRANULARITIES)},
            "description": "what verbose_json has times of; segments unless told otherwise",
        },
        "stream": {"type": "boolean", "description": "server-sent events, as the text becomes certain"},
        "language": {"type": "string", "description": "refused where the endpoint is set up for another one"},
        "keywords[]": {
            "type": "array",
            "items": {"type": "string"},
            "description": "phrases to expect, each `text` or `text:boost`; also called phrases",
        },
    },
}


@dataclass(frozen=True)
class TranscriptionRequest:
    """The fields of a request that we act on; ``model``, ``prompt``, ``temperature`` and the like change nothing.

    Attributes:
        upload: the file.
        form: of the answer.
        granularities: of times in it.
        stream: whether the answer comes as it grows.
        language: that the client says is spoken.
        phrases: to expect.
    """

    upload: UploadFile
    form: Form
    granularities: frozenset[str]
    stream: bool
    language: str | None
    phrases: tuple[str, ...]

    @classmethod
    def read(cls, fields: FormData, language: str | None) -> "TranscriptionRequest":
        """Read a form.

        Args:
            fields: of the form.
            language: that the endpoint is set up for, if it says so.

        Raises:
            Refused: names the field.
        """
        upload = fields.get("file")
        if not isinstance(upload, UploadFile):
            message = "the field 'file' is missing: attach an audio file"
            raise Refused(400, message, "file", "missing_required_parameter")
        form = _one_of(fields, "response_format", FORMS, "json")
        granularities = frozenset(_listed(fields, "timestamp_granularities"))
        if unknown := granularities.difference(GRANULARITIES):
            raise _unsupported(
                "timestamp_granularities", min(unknown), f"supported: {', '.join(GRANULARITIES)}"
            )
        if granularities and form != "verbose_json":
            why = "they come with response_format=verbose_json alone"
            raise _unsupported("timestamp_granularities", min(granularities), why)
        stream = _one_of(fields, "stream", ("true", "false", "1", "0"), "false", str.lower) in {"true", "1"}
        if stream and form not in {"json", "text"}:
            raise _unsupported("stream", "true", f"response_format={form} does not come in pieces")
        spoken = str(fields.get("language") or "") or None
        if language and spoken and spoken.lower() != language:
            raise _unsupported("language", spoken, f"this endpoint hears {language}")
        phrases = (*_listed(fields, "keywords"), *_listed(fields, "phrases"))
        return cls(upload, cast(Form, form), granularities, stream, spoken, phrases)

    @property
    def name(self) -> str:
        """What to call the file, cut to what a log line holds: it is the client's word, and is never opened."""
        return (self.upload.filename or "upload")[:NAME_LENGTH]


def _one_of(
    fields: FormData,
    name: str,
    values: tuple[str, ...],
    default: str,
    convert: Callable[[str], str] = str,
) -> str:
    value = convert(str(fields.get(name, default)))
    if value not in values:
        raise _unsupported(name, value, f"supported: {', '.join(values)}")
    return value


def _listed(fields: FormData, name: str) -> list[str]:
    """Return the values of a list, which SDKs name with brackets and people do not."""
    return [str(value) for key in (name, f"{name}[]") for value in fields.getlist(key)]


def _unsupported(name: str, value: str, why: str) -> Refused:
    return Refused(400, f"{name} {value[:40]!r} is not supported; {why}", name, "unsupported_value")
