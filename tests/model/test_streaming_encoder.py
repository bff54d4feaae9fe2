"""Streams are encoded as the masked full forward would, however they are cut and whoever else is in the batch."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from raysr.errors import ConfigError
from raysr.model.encoder import Caches
from raysr.model.mask import Chunk
from raysr.model.model import AsrModel
from raysr.model.streaming import EncoderStep, Streamer

MakeModel = Callable[..., AsrModel]

ATTENTION: list[dict[str, Any]] = [
    {"kind": "dynamic"},
    {"kind": "chunk"},
    {"kind": "left"},
    {"kind": "flow", "right_chunks": 1},
    {"kind": "flow", "right_chunks": 2},
]
ENCODERS: list[dict[str, Any]] = [
    *({"kind": "conformer", "attention": attention} for attention in ATTENTION),
    *({"kind": "transformer", "attention": attention} for attention in ATTENTION),
    {"kind": "lstm"},
]


def features_of(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(frames, 32, generator=torch.Generator().manual_seed(seed))


def masked(
    model: AsrModel, features: Tensor, chunk_size: int, left_chunks: int, lookahead: int = 0
) -> Tensor:
    context = chunk_size, left_chunks, lookahead
    with torch.no_grad():
        return model.encode(features[None], torch.tensor([len(features)]), *context).out[0]


def chunk_of(encoder: dict[str, Any], chunk_size: int) -> int:
    """Return ``chunk_size``, or 1 for the attention that streams frame by frame."""
    return 1 if encoder.get("attention") == {"kind": "left"} else chunk_size


def stream(streamer: Streamer, features: Tensor, cuts: list[int]) -> Tensor:
    """Push ``features`` cut at ``cuts`` and return all that comes out."""
    slot, outs = streamer.join(), []
    for piece in torch.tensor_split(features, sorted(cut % (len(features) + 1) for cut in cuts)):
        streamer.push(slot, piece)
        while ready := streamer.step():
            outs.append(ready[slot])
    outs.append(streamer.finish(slot))
    streamer.leave(slot)
    return torch.cat(outs)


def live(streamer: Streamer, utterances: list[Tensor], random: Random) -> list[Tensor]:
    """Encode every utterance as a stream; they join, wait, give up, begin again and leave at random."""
    outs: list[list[Tensor]] = [[] for _ in utterances]
    waiting, playing = list(range(len(utterances))), dict[int, tuple[int, int]]()  # slot: utterance, pushed
    patience = 3 * len(utterances)
    while waiting or playing:
        action = random.choice(["join", "push", "push", "step", "finish", "disturb"])
        slot = random.choice([*playing, -1])
        if action == "join" and waiting and len(playing) < 3:
            playing[streamer.join()] = waiting.pop(random.randrange(len(waiting))), 0
        elif action == "step":
            for ready, out in streamer.step().items():
                outs[playing[ready][0]].append(out)
        elif slot < 0:
            continue
        elif action == "push":
            number, pushed = playing[slot]
            more = random.randint(0, 40)
            streamer.push(slot, utterances[number][pushed : pushed + more])
            playing[slot] = number, pushed + more
        elif action == "disturb" and patience:
            patience -= 1
            number, _ = playing.pop(slot)
            outs[number].clear()
            if random.random() < 0.5:
                streamer.reset(slot)
                playing[slot] = number, 0
            else:
                streamer.leave(slot)
                waiting.append(number)
        elif action == "finish" and playing[slot][1] >= len(utterances[playing[slot][0]]):
            number, _ = playing.pop(slot)
            outs[number].append(streamer.finish(slot))
            if waiting and random.random() < 0.5:
                playing[slot] = waiting.pop(), 0
            else:
                streamer.leave(slot)
    return [torch.cat(out) for out in outs]


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=5),
    chunk_size=st.integers(1, 25),
    left_chunks=st.integers(-1, 4),
    lookahead=st.integers(0, 9),
    rate=st.sampled_from([2, 4, 6, 8]),
    random=st.randoms(use_true_random=True),
)
@example(lengths=[0, 1, 6, 7, 67, 68], chunk_size=16, left_chunks=4, lookahead=0, rate=4, random=Random(0))
@example(lengths=[90, 0, 1, 60], chunk_size=1, left_chunks=0, lookahead=0, rate=2, random=Random(1))
@example(lengths=[67, 70, 71, 82], chunk_size=16, left_chunks=1, lookahead=4, rate=4, random=Random(2))
def test_streams_that_come_and_go_equal_the_masked_full_forward(
    make_model: MakeModel,
    encoder: dict[str, Any],
    lengths: list[int],
    chunk_size: int,
    left_chunks: int,
    lookahead: int,
    rate: int,
    random: Random,
) -> None:
    model = make_model(subsampling=rate, **encoder)
    chunk_size = chunk_of(encoder, chunk_size)
    utterances = [features_of(length, seed) for seed, length in enumerate(lengths)]
    streamer = Streamer(model, chunk_size, left_chunks, slots=3, lookahead=lookahead)
    for utterance, out in zip(utterances, live(streamer, utterances, random), strict=True):
        assert len(out) == model.output_frames(len(utterance))
        expected = masked(model, utterance, chunk_size, left_chunks, lookahead)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "lookahead"), [("dynamic", 0), ("dynamic", 3), ("flow", 0)])
@pytest.mark.parametrize("chunk_size", range(1, 26))
def test_every_chunk_and_left_context_equals_the_masked_full_forward(
    make_model: MakeModel, kind: str, lookahead: int, chunk_size: int
) -> None:
    model = make_model(attention={"kind": kind})
    features = features_of(230)
    for left_chunks in (-1, 0, 1, 2, 60):
        expected = masked(model, features, chunk_size, left_chunks, lookahead)
        streamer = Streamer(model, chunk_size, left_chunks, lookahead=lookahead)
        streamed = stream(streamer, features, cuts=[1, 50, 51, 140])
        torch.testing.assert_close(streamed, expected, atol=1e-5, rtol=0)


def test_a_chunk_is_encoded_as_soon_as_its_window_is_there(make_model: MakeModel) -> None:
    streamer = Streamer(make_model(), chunk_size=16, left_chunks=4, slots=3)
    early, late = streamer.join(), streamer.join()
    streamer.push(early, features_of(66))
    streamer.push(late, features_of(5))
    assert streamer.step() == {}
    streamer.push(early, features_of(1))
    assert {slot: len(out) for slot, out in streamer.step().items()} == {early: 16}
    streamer.push(early, features_of(63))
    streamer.push(late, features_of(62))
    assert {slot: len(out) for slot, out in streamer.step().items()} == {late: 16}
    streamer.push(early, features_of(1))
    assert {slot: len(out) for slot, out in streamer.step().items()} == {early: 16}


def test_a_chunk_waits_for_the_frames_ahead_of_it(make_model: MakeModel) -> None:
    streamer = Streamer(make_model(), chunk_size=16, left_chunks=4, lookahead=2)
    slot = streamer.join()
    streamer.push(slot, features_of(74))
    assert streamer.step() == {}
    streamer.push(slot, features_of(1))
    assert len(streamer.step()[slot]) == 16
    assert len(streamer.finish(slot)) == 2


def test_chunk_flow_comes_out_a_look_ahead_later(make_model: MakeModel) -> None:
    model = make_model(layers=3, attention={"kind": "flow", "right_chunks": 2})
    streamer = Streamer(model, chunk_size=4, left_chunks=1)
    slot, counts = streamer.join(), []
    assert streamer.delay == 3 * 2 * 4
    for push in range(9):
        streamer.push(slot, features_of(16, seed=push))
        counts += [len(out) for out in streamer.step().values()]
    assert counts == [0, 0, 0, 0, 0, 0, 4, 4]


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_what_a_stream_takes_does_not_grow(make_model: MakeModel, encoder: dict[str, Any]) -> None:
    streamer = Streamer(make_model(**encoder), chunk_of(encoder, 4), left_chunks=2, slots=3, lookahead=2)
    slots, sizes = [streamer.join(), streamer.join()], []
    for push in range(40):
        for slot in slots[: 1 + push % 2]:
            streamer.push(slot, features_of(16, seed=push))
        while streamer.step():
            pass
        sizes.append(held_bytes(streamer))
    assert len(set(sizes[4::2])) == len(set(sizes[5::2])) == 1


def test_a_long_push_is_not_kept(make_model: MakeModel) -> None:
    sizes = []
    for chunks in (1, 50):
        streamer = Streamer(make_model(), chunk_size=4, left_chunks=2)
        streamer.push(streamer.join(), features_of(16 * chunks + 5))
        while streamer.step():
            pass
        sizes.append(held_bytes(streamer))
    assert sizes[0] == sizes[1]


def test_all_of_the_past_grows_with_the_longest_stream_alone(make_model: MakeModel) -> None:
    grown = []
    for count in (3, 4):
        streamer = Streamer(make_model(), chunk_size=4, left_chunks=-1, slots=8)
        slots, sizes = [streamer.join() for _ in range(count)], []
        for push in range(10):
            for slot in slots:
                streamer.push(slot, features_of(16, seed=push))
            streamer.step()
            sizes.append(held_bytes(streamer))
        grown.append(sizes[9] - sizes[4])
    assert grown[0] == grown[1] > 0


def test_all_of_the_past_is_forgotten_with_its_stream(make_model: MakeModel) -> None:
    streamer = Streamer(make_model(), chunk_size=4, left_chunks=-1, slots=2)
    slot, sizes = streamer.join(), []
    for _ in range(2):
        for push in range(10):
            streamer.push(slot, features_of(16, seed=push))
            streamer.step()
            sizes.append(held_bytes(streamer))
        streamer.reset(slot)
    assert sizes[1] < sizes[9]
    assert sizes[11:] == sizes[1:10]


@pytest.mark.parametrize("left_chunks", [-1, 2])
@pytest.mark.parametrize("encoder", [ENCODERS[0], ENCODERS[3]], ids=str)
def test_memory_follows_the_streams_that_are_there(
    make_model: MakeModel, encoder: dict[str, Any], left_chunks: int
) -> None:
    model, sizes = make_model(**encoder), {}
    streamer = Streamer(model, 4, left_chunks, slots=100)
    first, features = streamer.join(), features_of(200)
    streamer.push(first, features[:40])
    outs = [streamer.step()[first]]
    sizes["one"] = held_bytes(streamer)
    others = [streamer.join() for _ in range(20)]  # it grows while a stream goes on
    for slot in others:
        streamer.push(slot, features[:30])
    outs.append(streamer.step()[first])
    sizes["all"] = held_bytes(streamer)
    for slot in others:
        streamer.leave(slot)
    streamer.push(first, features[40:])
    while ready := streamer.step():
        outs.append(ready[first])
    outs.append(streamer.finish(first))
    sizes["one again"] = held_bytes(streamer)
    torch.testing.assert_close(torch.cat(outs), masked(model, features, 4, left_chunks), atol=1e-5, rtol=0)
    assert sizes["all"] > 10 * sizes["one"]
    if left_chunks >= 0:
        assert sizes["one again"] < 2 * sizes["one"]


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(0, 90), min_size=2, max_size=5),
    told=st.lists(st.integers(0, 8)),
    data=st.data(),
)
def test_streams_that_end_share_their_last_steps_with_those_that_go_on(
    make_model: MakeModel, encoder: dict[str, Any], lengths: list[int], told: list[int], data: st.DataObject
) -> None:
    model, size = make_model(**encoder), chunk_of(encoder, 4)
    streamer = Streamer(model, size, 2, slots=len(lengths))
    features = [features_of(length, seed) for seed, length in enumerate(lengths)]
    outs: dict[int, list[Tensor]] = {streamer.join(): [] for _ in features}
    for slot in outs:
        streamer.push(slot, features[slot])
    ending = data.draw(st.permutations(list(outs)))
    while ending or any(streamer.due(slot) for slot in outs):
        if ending and (told.pop() if told else 0) < 4:
            streamer.end(ending.pop())
        due = {slot for slot in outs if streamer.due(slot)}
        ready = streamer.step()
        assert ready.keys() == due
        for slot, out in ready.items():
            outs[slot].append(out)
    for slot, found in outs.items():
        streamed = torch.cat([*found, torch.zeros(0, model.config.encoder.dim)])
        torch.testing.assert_close(streamed, masked(model, features[slot], size, 2), atol=1e-5, rtol=0)
        assert len(streamer.finish(slot)) == 0


def test_a_step_that_fails_leaves_every_stream_as_it_was(make_model: MakeModel) -> None:
    model, features, failing = make_model(), [features_of(150, seed) for seed in range(3)], [False]

    class Fails(EncoderStep):
        def forward(self, features: Tensor, frames: Tensor, caches: Caches) -> tuple[Tensor, Tensor, Caches]:
            if failing[0] and len(frames) > 1:
                raise MemoryError("no room for two")
            return super().forward(features, frames, caches)

    streamer = Streamer(model, 4, 2, slots=3, step=Fails(model, Chunk(4, 2)))
    outs: dict[int, list[Tensor]] = {streamer.join(): [] for _ in features}
    for slot in outs:
        streamer.push(slot, features[slot])
    for number in range(100):
        failing[0] = number % 2 == 1
        if failing[0]:
            with pytest.raises(MemoryError):
                streamer.step()
            continue
        if not (ready := streamer.step({number // 2 % 3, 2})):
            break
        for slot, out in ready.items():
            outs[slot].append(out)
    failing[0] = False
    while ready := streamer.step():
        for slot, out in ready.items():
            outs[slot].append(out)
    for slot, found in outs.items():
        streamed = torch.cat([*found, streamer.finish(slot)])
        torch.testing.assert_close(streamed, masked(model, features[slot], 4, 2), atol=1e-5, rtol=0)


def held_bytes(streamer: Streamer) -> int:
    """Return the memory of every tensor that the streamer holds, of views all that they keep alive."""
    tensors = [leaf for leaf in pytree.tree_leaves(vars(streamer)) if isinstance(leaf, Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


class SeenSomething(TorchFunctionMode):
    """Counts the attentions computed, and checks that none has a row of softmax over nothing."""

    calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.calls += 1
            assert kwargs["attn_mask"].any(dim=-1).all()
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("encoder", ENCODERS[:-1], ids=str)
def test_no_attention_is_over_nothing(make_model: MakeModel, encoder: dict[str, Any]) -> None:
    streamer = Streamer(make_model(**encoder), chunk_of(encoder, 3), left_chunks=0, slots=2)
    with SeenSomething() as seen:
        stream(streamer, features_of(40), cuts=[])
    assert seen.calls > 0


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_another_step_can_take_the_place_of_the_encoder(
    make_model: MakeModel, encoder: dict[str, Any]
) -> None:
    model = make_model(**encoder)
    shapes = []

    class Spy(EncoderStep):
        def forward(self, features: Tensor, frames: Tensor, caches: Caches) -> tuple[Tensor, Tensor, Caches]:
            out, valid, following = super().forward(features, frames, caches)
            shapes.append([[cache.shape for cache in pytree.tree_leaves(c)] for c in (caches, following)])
            return out, valid, following

    features, chunk_size = features_of(101), chunk_of(encoder, 3)
    streamed = stream(Streamer(model, chunk_size, 2, step=Spy(model, Chunk(chunk_size, 2))), features, [20])
    assert streamed.equal(stream(Streamer(model, chunk_size, 2), features, [60]))
    assert all(before == after == shapes[0][0] for before, after in shapes)


def test_slots_are_given_out_once(make_model: MakeModel) -> None:
    streamer = Streamer(make_model(), chunk_size=4, left_chunks=1, slots=2)
    first, second = streamer.join(), streamer.join()
    assert {first, second} == {0, 1}
    with pytest.raises(RuntimeError, match="2 slots are taken"):
        streamer.join()
    streamer.leave(first)
    for late in (streamer.finish, streamer.reset, streamer.leave):
        with pytest.raises(ValueError, match=f"slot {first}"):
            late(first)
    assert streamer.join() == first


def test_a_model_of_full_context_refuses_to_stream(make_model: MakeModel) -> None:
    with pytest.raises(ConfigError, match="attention"):
        Streamer(make_model(attention={"kind": "full"}), 16, 4)
    with pytest.raises(ConfigError, match="whole utterances"):
        Streamer(make_model(kind="blstm"), 16, 4)
    for chunk_size in (0, -1):
        with pytest.raises(ConfigError, match="chunk_size"):
            Streamer(make_model(), chunk_size, 4)
