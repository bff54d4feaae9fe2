"""int8 weights for an exported step."""

from pathlib import Path
from tempfile import TemporaryDirectory

from raysr.export.installed import check_installed

OPERATORS = ["MatMul", "Gemm", "LSTM"]
"""Convolutions stay float: those of the subsampling are slower in int8."""


def quantise(source: Path, target: Path) -> None:
    """Write ``source`` with int8 weights, a scale for each output channel; the caches stay float32.

    Activations are quantised as they come, a scale for each tensor (dynamic quantisation), so that nothing
    is calibrated; products of two activations, those of the attention, stay float32.

    Raises :class:`ConfigError` where onnxruntime is missing.
    """
    check_installed()
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as folder:
        shaped = Path(folder) / "shaped.onnx"
        quant_pre_process(str(source), str(shaped), skip_optimization=True, skip_symbolic_shape=True)
        quantize_dynamic(
            str(shaped),
            str(target),
            op_types_to_quantize=OPERATORS,
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
