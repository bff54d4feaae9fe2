"""How much of what a stream has shown it takes back."""

from raysr.stream.events import Event, Final


class Stability:
    """Follows one stream.

    Attributes:
        words: of its finals.
        taken_back: words of a partial that the next event has others for; by ``words`` this is the unstable partial
            word ratio (UPWR; Shangguan et al., Interspeech 2020).
    """

    def __init__(self) -> None:
        self.words = self.taken_back = 0
        self._before: list[str] = []

    def told(self, event: Event) -> None:
        """Take the next event."""
        words = event.text.split()
        pairs = enumerate(zip(self._before, words, strict=False))
        same = next((n for n, (before, now) in pairs if before != now), min(len(self._before), len(words)))
        self.taken_back += len(self._before) - same
        self._before = words
        if isinstance(event, Final):
            self.words += len(words)
            self._before = []
