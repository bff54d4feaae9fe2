"""What a run makes on first use and then keeps: tokeniser, a fresh student, and the LM of labelled texts."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from raysr.corpus.disk import naming_folder, sync
from raysr.corpus.utterance import Utterance
from raysr.decode.lm_file import StoredLm, file_name, load_lm
from raysr.ipl.lm import LmConfig, further_text, train_lm
from raysr.model.config import ModelConfig
from raysr.text.tokeniser import Tokeniser, TokeniserConfig
from raysr.train.reading.reader import FeatureReader
from raysr.train.start import write_scratch


class Materials:
    """The frozen parts of a run, in a folder of their own."""

    def __init__(
        self, folder: Path, tokeniser: TokeniserConfig, lm: LmConfig, model: ModelConfig, seed: int
    ) -> None:
        self.folder = folder
        self.tokeniser_path = folder / "tokenizer.model"
        self._tokeniser, self._lm, self._model, self._seed = tokeniser, lm, model, seed
        self._further = further_text(lm)

    def tokeniser(self, utterances: Iterable[Utterance]) -> Tokeniser:
        """Return the tokeniser, trained on these utterances' texts if this is its first use."""
        if not self.tokeniser_path.exists():
            further = self._further if self._lm.words is None else []
            trained = Tokeniser.train([*_texts(utterances), *further], self._tokeniser)
            self._publish(self.tokeniser_path, trained.save)
        return Tokeniser.load(self.tokeniser_path)

    def lm(
        self, tokeniser: Tokeniser, labelled: Sequence[Utterance], pseudo: Sequence[Utterance]
    ) -> StoredLm | None:
        """Return the language model: of the labelled texts, made on first use, or of this cycle's labels.

        One that takes nothing from texts is made on first use too.
        """
        if self._lm.order == 0:
            return None
        if not labelled and self._lm.reads_texts:
            return self._train_lm(tokeniser, pseudo)
        if (made := load_lm(self.folder, tokeniser)) is None:
            made = self._train_lm(tokeniser, labelled)
            self._publish(self.folder / file_name(made), made.save)
        return made

    def _train_lm(self, tokeniser: Tokeniser, utterances: Iterable[Utterance]) -> StoredLm:
        return train_lm(self._lm, tokeniser, _texts(utterances), self._further)

    def scratch(
        self, model: ModelConfig, utterances: Iterable[Utterance], reader: FeatureReader, vocab_size: int
    ) -> Path:
        """Return a fresh student's weights; its CMVN is that of the first training set ever after.

        A model that is not the run's, but of a later cycle, has a file of its own.
        """
        recipe = json.dumps(model.dump(), sort_keys=True)
        other = "" if model == self._model else f"-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
        path = self.folder / f"scratch{other}.safetensors"
        if not path.exists():
            self._publish(
                path,
                partial(
                    write_scratch,
                    model=model,
                    vocab_size=vocab_size,
                    utterances=utterances,
                    reader=reader,
                    seed=self._seed,
                ),
            )
        return path

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
