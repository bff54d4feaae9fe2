"""What a run makes on first use and then keeps: tokeniser, a fresh student, and the LM of labelled texts."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from pydantic import Field

from raysr.config import Config
from raysr.corpus.disk import naming_folder, sync
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.decode.ngram import Ngram
from raysr.errors import CorpusError
from raysr.model.config import ModelConfig
from raysr.text.normalise import normalise
from raysr.text.tokeniser import Tokeniser, TokeniserConfig
from raysr.train.start import write_scratch


class LmConfig(Config):
    """The n-gram that decodes and labels; trained on labelled texts, without any on each cycle's kept labels.

    ``order`` counts tokens, 0 leaves it out; ``text`` is a file of further sentences, one a line.
    """

    order: int = Field(default=6, ge=0)
    text: str | None = None


class Materials:
    """The frozen parts of a run, in a folder of their own."""

    def __init__(
        self, folder: Path, tokeniser: TokeniserConfig, lm: LmConfig, model: ModelConfig, seed: int
    ) -> None:
        self.folder = folder
        self.tokeniser_path = folder / "tokenizer.model"
        self._tokeniser, self._lm, self._model, self._seed = tokeniser, lm, model, seed

    def tokeniser(self, utterances: Iterable[Utterance]) -> Tokeniser:
        """Return the tokeniser, trained on these utterances' texts if this is its first use."""
        if not self.tokeniser_path.exists():
            trained = Tokeniser.train([*_texts(utterances), *self._further_text()], self._tokeniser)
            self._publish(self.tokeniser_path, trained.save)
        return Tokeniser.load(self.tokeniser_path)

    def lm(
        self, tokeniser: Tokeniser, labelled: Sequence[Utterance], pseudo: Sequence[Utterance]
    ) -> Ngram | None:
        """Return the language model: of the labelled texts, made on first use, or of this cycle's labels."""
        if self._lm.order == 0:
            return None
        if not labelled:
            return self._train_lm(tokeniser, pseudo)
        path = self.folder / "lm.arpa.gz"
        if not path.exists():
            self._publish(path, self._train_lm(tokeniser, labelled).save)
        return Ngram.load(path)

    def _train_lm(self, tokeniser: Tokeniser, utterances: Iterable[Utterance]) -> Ngram:
        # a text counts once, however often it was spoken
        sentences = dict.fromkeys([*_texts(utterances), *self._further_text()])
        sequences = [tokeniser.encode(text) for text in sentences]
        return Ngram.train(sequences, self._lm.order, tokeniser.vocab_size)

    def scratch(self, utterances: Iterable[Utterance], cache: FeatureCache, vocab_size: int) -> Path:
        """Return a fresh student's weights; its CMVN is that of the first training set ever after."""
        path = self.folder / "scratch.safetensors"
        if not path.exists():
            self._publish(
                path,
                partial(
                    write_scratch,
                    model=self._model,
                    vocab_size=vocab_size,
                    utterances=utterances,
                    cache=cache,
                    seed=self._seed,
                ),
            )
        return path

    def _further_text(self) -> list[str]:
        if self._lm.text is None:
            return []
        try:
            lines = Path(self._lm.text).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CorpusError(f"lm.text: cannot read {self._lm.text}: {error}") from None
        return [text for text in map(normalise, lines) if text]

    def _publish(self, path: Path, write: Callable[[Path], None]) -> None:
        """Let ``write`` make a file under another name, then put it in place whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}")
        with naming_folder(self.folder):
            write(scratch)
            sync(scratch)
            scratch.replace(path)
            sync(self.folder)


def _texts(utterances: Iterable[Utterance]) -> list[str]:
    return [u.text for u in utterances if u.text]
