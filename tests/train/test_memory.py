"""The largest batch that fits: bounds that no dealt batch passes, and steps of a real student that are measured."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from raysr.errors import RunError
from raysr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel
from raysr.train.memory.find import find_largest_batch
from raysr.train.memory.gauge import available
from raysr.train.memory.growth import Growth
from raysr.train.memory.search import NoRoom, search
from raysr.train.memory.shapes import Lengths, Shape, WorstShapes
from raysr.train.memory.trial import Trials
from raysr.train.sampler import MixedSampler, shard
from tests.train.ranks import on_ranks
from tests.train.students import Broken, Dying, Student

CPU = torch.device("cpu")
MIB = 1 << 20
STUDENT = Student(
    ModelConfig(
        encoder=EncoderConfig(dim=64, layers=2, heads=2, feed_forward=128, subsampling_channels=16),
        decoder=DecoderConfig(heads=2, feed_forward=64),
    ),
    vocab_size=100,
)
UTTERANCES = st.lists(st.tuples(st.integers(1, 400), st.integers(0, 60)), min_size=1, max_size=40)


def corpus(seed: int = 0, longest: int = 600) -> Lengths:
    """Return 400 utterances of half a second or more, with 8 to 16 tokens a second."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(50, longest, 400)
    return Lengths(
        [frames.tolist()], [(frames * rng.uniform(0.08, 0.16, 400)).astype(int).tolist()], [1.0], 0.25
    )


def names(lengths: Lengths) -> list[str]:
    return [f"utterance-{number}" for number in range(len(lengths.frames[0]))]


@given(
    st.lists(UTTERANCES, min_size=1, max_size=3),
    st.lists(st.floats(0.1, 1.0), min_size=3, max_size=3),
    st.integers(1, 3000),
    st.floats(0, 0.5),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_no_rank_gets_more_than_the_worst_batch_of_its_longest_utterance(
    sources: Sequence[Sequence[tuple[int, int]]],
    shares: list[float],
    budget: int,
    padding: float,
    ranks: int,
    seed: int,
) -> None:
    frames, tokens = ([[pair[part] for pair in source] for source in sources] for part in (0, 1))
    shares = shares[: len(sources)]
    worst = WorstShapes(Lengths(frames, tokens, shares, padding), ranks)
    most = worst.utterances(budget)
    sampler, texts = MixedSampler(frames, shares, budget, padding, seed), np.concatenate(tokens)
    for _ in range(40):
        batch = sampler.next()
        for rank in range(ranks):
            mine = shard(batch, rank, ranks)
            length = int(np.searchsorted(worst.frames, sampler.frames[mine].max()))
            assert len(mine) <= most[length]
            assert texts[mine].max() <= worst.tokens[length]


def test_the_worst_batch_is_dealt_where_all_utterances_are_alike() -> None:
    lengths = Lengths([[100] * 200], [[7] * 200], [1.0], 0.0, stretch=1.5)
    worst = WorstShapes(lengths, ranks=2)
    assert worst.shape(0, int(worst.utterances(1000)[0])) == Shape(5, 150, 7)
    dealt = MixedSampler(lengths.frames, lengths.shares, 1000, 0.0, 0).next()
    assert len(shard(dealt, 0, 2)) == 5


def test_one_long_utterance_is_no_batch_of_many() -> None:
    worst = WorstShapes(Lengths([[1000] * 100 + [9000]], [[10] * 101], [1.0], 0.25), 1)
    # a window may hold the long one thrice, and a batch of these has room for one other
    assert worst.utterances(90000).tolist() == [90, 4]


@given(
    st.tuples(*[st.floats(0, 1e3)] * 4),
    st.lists(
        st.tuples(st.integers(1, 64), st.integers(10, 3000), st.integers(0, 300)), min_size=5, max_size=9
    ),
)
def test_growth_passes_through_what_grows_so_and_never_falls(
    coefficients: tuple[float, ...], shapes: list[tuple[int, int, int]]
) -> None:
    def taken(shape: Shape) -> float:
        b, t, u = shape
        return float(np.dot(coefficients, (1e3, b * t, b * t * t / 100, b * u)))

    points = [(Shape(*shape), round(taken(Shape(*shape)))) for shape in shapes]
    growth = Growth(points)
    scale = max(peak for _, peak in points) + 1
    for shape, peak in points:
        assert abs(float(growth.peak(*shape)) - peak) <= 1e-4 * scale + 1
    assert (growth.coefficients >= 0).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ranks", [1, 3])
def test_no_larger_budget_fits_than_the_one_found(seed: int, ranks: int) -> None:
    shapes, limit = WorstShapes(corpus(seed, longest=1200), ranks), 300_000

    def takes(shape: Shape) -> int:
        # a term that no growth has, and a device that fails where there is no more
        return 100_000 + round(
            shape.utterances * (2 * shape.frames + shape.frames**1.5 / 30 + 9 * shape.tokens)
        )

    def measure(tried: Sequence[Shape]) -> list[int | None]:
        return [takes(shape) if takes(shape) <= 1.1 * limit else None for shape in tried]

    def most(budget: int) -> int:
        rows = shapes.utterances(budget)
        return max(takes(shapes.shape(length, int(row))) for length, row in enumerate(rows))

    found = search(measure, shapes, limit)
    assert found.peak == takes(found.worst) <= limit
    assert most(found.batch_frames) <= limit
    assert most(round(found.batch_frames * 1.05)) > limit


def test_on_a_device_with_room_for_all_a_batch_is_the_corpus() -> None:
    shapes = WorstShapes(corpus(), 1)
    assert search(lambda tried: [shape.frames for shape in tried], shapes, 10**9).batch_frames == shapes.total


def test_a_device_without_room_for_anything_has_no_room() -> None:
    with pytest.raises(NoRoom):
        search(lambda tried: [None] * len(tried), WorstShapes(corpus(), 1), 10**9)


@pytest.fixture(scope="module")
def trials() -> Trials:
    with Trials(STUDENT, CPU) as trials:
        yield trials


@pytest.fixture(scope="module")
def resting(trials: Trials) -> int:
    """Return the bytes of a process without a student."""
    [peak] = trials.peaks([Shape(1, 10, 1)])
    assert peak is not None
    return peak


def test_what_is_found_for_a_real_student_fits_and_what_is_expected_is_measured(
    trials: Trials, resting: int
) -> None:
    lengths = corpus()
    budgets = []
    for more in (80 * MIB, 160 * MIB):
        found = find_largest_batch(STUDENT, lengths, names(lengths), CPU, limit=resting + more)
        assert found.peak <= found.limit == resting + more
        assert found.peak - resting > 0.8 * more
        assert abs(found.predicted - found.peak) < 0.15 * more
        budgets.append(found.batch_frames)
        sampler = MixedSampler(lengths.frames, lengths.shares, found.batch_frames, lengths.max_padding, 0)
        texts, largest = np.concatenate(lengths.tokens), (0, Shape(0, 0, 0))
        for _ in range(200):
            batch = sampler.next()
            frames = int(sampler.frames[batch].max())
            dealt = Shape(len(batch), frames, int(texts[batch].max()))
            largest = max(largest, (len(batch) * frames, dealt))
        [peak] = trials.peaks([largest[1]])
        assert peak is not None
        assert peak - resting < 1.15 * more  # resident memory is not the same each time; headroom is for that
    assert budgets[1] > 1.5 * budgets[0]


def test_what_hooks_and_optimisers_keep_counts(trials: Trials, resting: int) -> None:
    wide = ModelConfig(encoder=EncoderConfig(dim=256, layers=6, heads=2, feed_forward=1024))
    parameters = 4 * sum(p.numel() for p in AsrModel(wide, 100).parameters())
    peaks = []
    for power_sgd in (False, True):
        with Trials(Student(wide, 100, power_sgd), CPU) as wider:
            peaks += wider.peaks([Shape(1, 10, 1)])
    plain, with_hook = (peak or 0 for peak in peaks)
    assert plain - resting > 3.5 * parameters  # weights, gradients, two moments
    assert with_hook - plain > 0.8 * parameters  # errors


def test_too_little_memory_names_the_utterance_and_what_it_takes(resting: int) -> None:
    lengths = corpus()
    longest = int(np.argmax(lengths.frames[0]))
    with pytest.raises(RunError) as error:
        find_largest_batch(STUDENT, lengths, names(lengths), CPU, limit=resting - 5 * MIB)
    said = re.fullmatch(
        rf"a training step of utterance utterance-{longest} alone \({max(lengths.frames[0]) / 100:.1f} s\) takes "
        r"(\S+) GiB of memory or more, and each rank on host \S+ may take (\S+) GiB: leave it out or .*",
        str(error.value),
    )
    assert said is not None
    assert float(said[1]) > float(said[2])


def found_by_ranks(limits: list[int]) -> int | str:
    lengths = corpus(longest=200)
    try:
        return find_largest_batch(
            STUDENT, lengths, names(lengths), CPU, limit=limits[dist.get_rank()]
        ).batch_frames
    except RunError as error:
        return str(error)


def test_ranks_agree_on_what_fits_everywhere(resting: int) -> None:
    [first, second] = on_ranks(2, found_by_ranks, [resting + 20 * MIB, resting + 40 * MIB])
    assert isinstance(first, int)
    assert first == second


def test_where_it_fits_on_one_rank_alone_all_are_told(resting: int) -> None:
    [first, second] = on_ranks(2, found_by_ranks, [resting - 5 * MIB, resting + 40 * MIB])
    assert str(first).startswith("a training step of utterance")
    assert first == second


def test_a_trial_that_is_killed_is_one_that_does_not_fit() -> None:
    with Trials(Dying(), CPU) as trials:
        assert trials.peaks([Shape(1, 10, 1), Shape(2, 10, 1)]) == [None, None]
        assert trials.room().used > 0


def test_an_error_of_the_student_is_raised() -> None:
    with Trials(Broken(), CPU) as trials, pytest.raises(ZeroDivisionError):
        trials.peaks([Shape(1, 10, 1)])


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def group(folder: str, most: str, used: int, cached: int) -> dict[str, str]:
    return {
        f"sys/fs/cgroup/{folder}memory.max": f"{most}\n",
        f"sys/fs/cgroup/{folder}memory.current": f"{used}\n",
        f"sys/fs/cgroup/{folder}memory.stat": f"anon {used - cached}\ninactive_file {cached}\nactive_file 0\n",
    }


def test_the_tightest_control_group_decides(tmp_path: Path) -> None:
    host = {
        "proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n",
        "proc/self/cgroup": "1:name=x:/y\n0::/a/b\n",
    }
    assert available(write(tmp_path, host)) == 8000 << 10
    assert available(write(tmp_path, group("a/b/", "max", 10, 0))) == 8000 << 10
    assert available(write(tmp_path, group("a/", "5000000", 4000000, 1000000))) == 2000000
    assert available(write(tmp_path, group("a/b/", "100", 400, 0))) == 0


def test_this_host_has_memory_left() -> None:
    assert 0 < available() < 1 << 50
