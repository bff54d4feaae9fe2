"""A name for weights on disk: two teachers of one version compute the same."""

import hashlib
from pathlib import Path

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.onnx", "*.ort")


def weights_hash(folder: str | Path) -> str:
    """Return a short SHA-256 of all files of weights in ``folder``, in the order of their names; "" without any."""
    files = sorted({path for pattern in WEIGHTS for path in Path(folder).glob(pattern)})
    digests = [_sha256(path) for path in files]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16] if files else ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
