"""The corpora of a run, opened."""

from collections.abc import Mapping
from dataclasses import dataclass

from raysr.corpus.manifest import Manifest, load_truth, open_manifest
from raysr.errors import CorpusError
from raysr.ipl.canary import MARK
from raysr.ipl.config import DataPart


@dataclass(frozen=True)
class Corpora:
    """``truth`` holds the transcripts of unlabelled audio, for scoring only; None where there are none."""

    labelled: Manifest | None
    unlabelled: Manifest
    dev: Manifest
    tests: Mapping[str, Manifest]
    truth: Mapping[str, str] | None


def open_corpora(data: DataPart) -> Corpora:
    """Open what the configuration names; the built-in corpus fills in the rest when it is asked for.

    Raises:
        CorpusError: a manifest cannot be read, or an id of the unlabelled audio comes twice or is the canary's.
    """
    named = Corpora(
        labelled=open_manifest(data.labelled) if data.labelled else None,
        unlabelled=open_manifest(data.unlabelled or ()),
        dev=open_manifest(data.dev or ()),
        tests={name: open_manifest(path) for name, path in data.tests.items()},
        truth=load_truth(data.truth) if data.truth else None,
    )
    corpora = _with_demo(data, named) if data.demo else named
    marked = next((name for name in corpora.unlabelled.ids() if name.startswith(MARK)), None)
    if marked is not None:
        raise CorpusError(
            f"the unlabelled utterance '{marked}' has an id of the canary's: ids may not begin '{MARK}'"
        )
    return corpora


def _with_demo(data: DataPart, named: Corpora) -> Corpora:
    from raysr.corpus.demo import demo_corpus

    demo = demo_corpus()
    return Corpora(
        labelled=named.labelled or demo.labelled,
        unlabelled=named.unlabelled if data.unlabelled else demo.unlabelled,
        dev=named.dev if data.dev else open_manifest([u for part in demo.dev.values() for u in part]),
        tests=named.tests or demo.tests,
        truth=named.truth or demo.truth,
    )
