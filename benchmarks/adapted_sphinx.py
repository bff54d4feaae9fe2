"""PocketSphinx's acoustic model, adapted to transcribed audio as a recogniser of the trade would be.

python -m benchmarks.adapted_sphinx data/labelled models/adapted      # then {kind: pocketsphinx, hmm: models/adapted}

Maximum a posteriori adaptation (Gauvain and Lee 1994, doi:10.1109/89.279278) by SphinxTrain: its programs gather the
statistics of the audio along its transcripts and move means, variances and weights towards them. On Debian:

apt-get install sphinxtrain pocketsphinx sphinxbase-utils
"""

import argparse
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from raysr.audio.encode import wav_bytes
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import open_manifest
from raysr.corpus.utterance import Utterance
from raysr.errors import RaysrError, RunError

PROGRAMS = ("bw", "map_adapt", "mk_s2sendump", "sphinx_fe", "pocketsphinx_mdef_convert")
FURTHER_PATH = "/usr/lib/sphinxtrain"  # where Debian puts those that are no commands
FEATURES = ("-feat", "1s_c_d_dd", "-svspec", "0-12/13-25/26-38", "-cmn", "batch", "-agc", "none")
BYTE_ORDER = 0x11223344


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", help="a manifest, or a folder of shards, with transcripts")
    parser.add_argument("into", type=Path, help="folder for the model; must not be there")
    options = parser.parse_args()
    try:
        print(adapt(open_manifest(options.corpus), options.into.absolute()))
    except RaysrError as error:
        parser.error(str(error))


def adapt(utterances: Iterable[Utterance], into: Path) -> Path:
    """Write an acoustic model in the folder ``into``: that of the wheel, adapted to transcribed utterances.

    What has a word without a pronunciation is left out.

    Raises:
        RunError: a program is missing or fails, with the end of what it said.
    """
    from pocketsphinx import get_model_path

    if into.exists():
        raise RunError(f"{into} is there already: name another folder, or remove it")
    work = into.with_name(f".{into.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(get_model_path("en-us/en-us"), work / "hmm", copy_function=shutil.copyfile)
    pronounced = _pronunciations(Path(get_model_path("en-us/cmudict-en-us.dict")))
    _write_corpus(work, utterances, pronounced)
    hmm, run = work / "hmm", _runner(work)
    write_mixture_weights(hmm / "sendump", hmm / "mixture_weights")
    run("pocketsphinx_mdef_convert", "-text", "hmm/mdef", "mdef.txt")
    run("sphinx_fe", "-argfile", "hmm/feat.params", "-samprate", "16000", "-c", "files", "-di", "wav",
        "-do", "mfc", "-ei", "wav", "-eo", "mfc", "-mswav", "yes", "-remove_silence", "no")  # fmt: skip
    parts = {"mean": "means", "var": "variances", "mixw": "mixture_weights", "tmat": "transition_matrices"}
    model = ("-moddeffn", "mdef.txt", "-ts2cbfn", ".ptm.")
    run("bw", *model, *FEATURES, "-hmmdir", "hmm", "-dictfn", "dict", "-fdictfn", "fillers", "-ctlfn", "files",
        "-lsnfn", "transcripts", "-cepdir", "mfc", "-cepext", "mfc", "-accumdir", "counts")  # fmt: skip
    before = [word for part, name in parts.items() for word in (f"-{part}fn", f"hmm/{name}")]
    after = [word for part, name in parts.items() for word in (f"-map{part}fn", f"adapted/{name}")]
    shutil.copytree(hmm, work / "adapted")
    run("map_adapt", *model, "-accumdir", "counts", *before, *after)
    run("mk_s2sendump", "-pocketsphinx", "yes", "-moddeffn", "mdef.txt", "-mixwfn", "adapted/mixture_weights",
        "-sendumpfn", "adapted/sendump")  # fmt: skip
    (work / "adapted" / "mixture_weights").unlink()
    (work / "adapted").rename(into)
    shutil.rmtree(work)
    return into


def programs() -> dict[str, str | None]:
    """Return where the programs of SphinxTrain are that this takes; None is not here."""
    path = os.pathsep.join([os.environ.get("PATH", ""), FURTHER_PATH])
    return {name: shutil.which(name, path=path) for name in PROGRAMS}


def write_mixture_weights(sendump: Path, path: Path) -> None:
    """Write the weights of the Gaussians in the format of SphinxTrain, out of the one that is made for decoding.

    That one holds them as bytes: logarithms to the base 1.0001, divided by 2^10, for each feature stream and Gaussian
    of all senones.
    """
    content, place, sizes = sendump.read_bytes(), 0, {}
    while True:
        (length,) = struct.unpack_from("<i", content, place)
        place += 4
        if not length:
            break
        key, _, value = content[place : place + length - 1].decode().partition(" ")
        sizes[key] = value
        place += length
    streams = int(sizes["feature_count"])
    gaussians, senones = struct.unpack_from("<ii", content, place)
    logs = np.frombuffer(content, np.uint8, streams * gaussians * senones, place + 8).astype(np.int64) << 10
    weights = np.power(1.0001, -logs.reshape(streams, gaussians, senones)).transpose(2, 0, 1)
    weights /= weights.sum(-1, keepdims=True)
    header = b"s3\nversion 1.0\n"
    header += b" " * (-(len(header) + len(b"endhdr\n")) % 4) + b"endhdr\n"
    counts = struct.pack("<5i", BYTE_ORDER, senones, streams, gaussians, weights.size)
    path.write_bytes(header + counts + weights.astype("<f4").tobytes())


def _pronunciations(dictionary: Path) -> dict[str, list[str]]:
    """Return the lines of a dictionary by their word, its alternatives together."""
    found: dict[str, list[str]] = {}
    for line in dictionary.read_text(encoding="utf-8").splitlines():
        found.setdefault(line.split(maxsplit=1)[0].partition("(")[0], []).append(line)
    return found


def _write_corpus(folder: Path, utterances: Iterable[Utterance], pronounced: dict[str, list[str]]) -> None:
    for name in ("wav", "mfc", "counts"):
        (folder / name).mkdir()
    files, transcripts, words = [], [], set[str]()
    for number, utterance in enumerate(utterances):
        said = (utterance.text or "").split()
        if not said or not all(word in pronounced for word in said):
            continue
        words.update(said)
        files.append(f"u{number:06d}")
        transcripts.append(f"<s> {' '.join(said)} </s> ({files[-1]})")
        (folder / "wav" / f"{files[-1]}.wav").write_bytes(wav_bytes(load_waveform(utterance), 16000))
    _write_lines(folder / "files", files)
    _write_lines(folder / "transcripts", transcripts)
    _write_lines(folder / "dict", [line for word in sorted(words) for line in pronounced[word]])
    _write_lines(folder / "fillers", ["<s> SIL", "</s> SIL", "<sil> SIL"])


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _runner(folder: Path) -> Callable[..., None]:
    """Return what runs a program in a folder; its output is kept beside what it makes."""
    found = programs()
    if missing := [name for name, place in found.items() if place is None]:
        raise RunError(
            f"{', '.join(missing)} not found: apt-get install sphinxtrain pocketsphinx sphinxbase-utils"
        )

    def run(name: str, *options: str) -> None:
        done = subprocess.run([str(found[name]), *options], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr + done.stdout).strip().splitlines()[-3:]
            raise RunError(f"{name} failed: {' / '.join(said)}")

    return run


if __name__ == "__main__":
    main()
