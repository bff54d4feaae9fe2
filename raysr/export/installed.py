"""Whether the packages of the extra ``onnx`` are here; looking imports none of them."""

from importlib.util import find_spec

from raysr.errors import ConfigError

NEEDED = ("onnx", "onnxruntime", "onnxscript")


def check_installed(names: tuple[str, ...] = NEEDED) -> None:
    """Raise :class:`ConfigError` where one of the packages is missing."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ConfigError(f"ONNX needs {', '.join(missing)}: pip install 'raysr[onnx]'")
