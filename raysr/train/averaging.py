"""The exponential moving average of a model's weights, which is often better than where training has come to last."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage:
    """A model whose weights are the average, over the steps of a training, of another's; both in float32.

    The first update takes that model's weights as they are. Of n of them the next one keeps
    min(decay, (1 + n) / (10 + n)) of the average, so that early weights, which are far off, are soon forgotten: the
    rule of TensorFlow's ``tf.train.ExponentialMovingAverage``.

    Args:
        model: that is trained, not wrapped; before any update the average is what it is.
        decay: of the average by an update, in the long run.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        averaged = AveragedModel(model, multi_avg_fn=self._take_in)
        # a copied LSTM lies in pieces, which cuDNN would put together at every call, until it is cast or moved
        self._averaged = averaged.float().requires_grad_(False)

    @property
    def model(self) -> nn.Module:
        """The average: a model of the same kind, with the buffers of the one that is trained."""
        return self._averaged.module

    @property
    def updates(self) -> int:
        """How many times weights were taken in."""
        return int(self._averaged.n_averaged)

    def update(self, model: nn.Module) -> None:
        """Take in the weights of the model that is trained, after a step of it."""
        self._averaged.update_parameters(model)

    def state_dict(self) -> dict[str, Tensor]:
        """Return that of the averaged model."""
        return dict(self.model.state_dict())

    def load(self, weights: Mapping[str, Tensor], updates: int) -> None:
        """Go on where :meth:`state_dict` was taken, after so many updates."""
        self.model.load_state_dict(dict(weights))
        self._averaged.n_averaged.fill_(updates)

    def _take_in(self, averages: Sequence[Tensor], weights: Sequence[Tensor], updates: Tensor | int) -> None:
        n = int(updates)
        get_ema_multi_avg_fn(min(self._decay, (1 + n) / (10 + n)))(averages, weights, n)
