"""A corpus of two languages: English, Mandarin, and speakers who switch between them within a sentence.

Sentences of meetings: English ones by the demo corpus's grammar, Mandarin ones by a small one here; in every other
sentence some slots are filled in the other language, and names are English in both. Who speaks is one of espeak-ng's
variants, which has the same voice in either language. Sentences and speakers of the test part are in no other.
"""

import random
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from raysr.audio.encode import encode_opus
from raysr.corpus.demo.grammar import FRAMES
from raysr.corpus.demo.words import KNOWN_NAMES, SLOTS
from raysr.corpus.manifest import open_manifest
from raysr.corpus.shards import write_shards
from raysr.corpus.synthesis.engines import SAMPLE_RATE, Line
from raysr.corpus.synthesis.speakers import PAUSE, Speakers, levelled, trimmed
from raysr.corpus.synthesis.voices import Voice
from raysr.corpus.utterance import Utterance


def _list(items: str) -> list[str]:
    return items.split()


ENGLISH, MANDARIN = "en-us", "cmn"
PARTS: Mapping[str, tuple[int, Sequence[str]]] = {
    "train": (
        1500,
        _list("m1 m2 m3 m5 m7 f1 f2 f3 f5 Alex Annie adam anika ed Gene paul"),
    ),
    "dev": (150, _list("m4 f4 Michael linda")),
    "test": (400, _list("john max Jacky m8 Andrea Lee")),
}
SWITCHED = 0.5
"""The share of sentences in which speakers switch, and there the share of slots that are in the other language."""
BITRATE = 24000
SEED = 2026
WORDS: Mapping[str, Sequence[str]] = {
    "team": _list("财务 市场 支持 设计 研究 安全 法律 销售 硬件 平台 培训 质量"),
    "document": _list("报告 合同 提案 预算 议程 发票 总结 日程 调查 演示 录音 清单 记录 图表"),
    "thing": _list("服务器 数据库 打印机 麦克风 网站 备份 网络 相机 投影仪 电池 键盘 支付系统"),
    "topic": _list("招聘 差旅费 客户反馈 新办公室 隐私 工资 假期安排 测试结果 能源 明年的计划"),
    "customer": _list("银行 医院 航空公司 大学 博物馆 工厂 报社 图书馆 酒店"),
    "day": _list("星期一 星期二 星期三 星期四 星期五 星期六"),
    "when": _list("今天 明天 今天下午 下周 午饭以后 周末以前 月底 三点 十点半"),
    "quality": _list("太慢 很好 太贵 没准备好 快完成了 很有用 好多了 过期了 有点乱 完全坏了"),
    "act": _list("检查 审阅 重写 完成 打印 翻译 批准 取消 分享 更新 转发"),
    "mend": _list("修理 更换 重启 移动 测试 清洁 订购 升级"),
    "room": _list("厨房 大厅 小会议室 花园 阅览室 实验室 地下室"),
    "food": _list("咖啡 三明治 水果 比萨 茶和饼干 汤 冷水 早餐"),
}
MANDARIN_FRAMES = (
    "我们{when}要{act}{document}",
    "{person}已经{act}了{document}",
    "{room}的{thing}{quality}",
    "请把{document}发给{person}",
    "{when}在{room}讨论{topic}",
    "{place}的{customer}想看{document}",
    "我觉得{thing}{quality}",
    "{team}部门在等{person}",
    "谁{when}来{mend}{thing}",
    "{person}说{document}{quality}",
    "会议改到{day}在{room}",
    "{customer}问了{topic}的问题",
    "别忘了给客人带{food}",
    "{project}{when}开始需要{document}",
    "大家都同意{place}的{document}{quality}",
    "我跟{person}谈了{topic}和{document}",
)
_PART = re.compile(r"(\{\w+\})")
Pieces = list[tuple[str, str]]
"""Of a sentence: language and words, alternating."""


def two_languages(
    folder: Path, scale: float = 1.0, wanted: Collection[str] = tuple(PARTS)
) -> dict[str, list[Utterance]]:
    """Return parts of the corpus in ``folder``, writing those that are missing; ``scale`` shrinks them."""
    drawn = sentences(SEED)
    parts: dict[str, list[Utterance]] = {}
    for name, (count, variants) in PARTS.items():
        chosen = list(islice(drawn, max(1, round(count * scale))))
        if name in wanted:
            parts[name] = shards_once(folder / name, partial(_spoken, name, chosen, variants))
    return parts


def shards_once(folder: Path, made: Callable[[], Iterable[tuple[Utterance, bytes]]]) -> list[Utterance]:
    """Return the utterances in a folder; where it is not there, write those that are made, all or none."""
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        write_shards(unfinished, made())
        unfinished.rename(folder)
    return list(open_manifest(folder))


def sentences(seed: int) -> Iterator[Pieces]:
    """Yield sentences, none twice, English and Mandarin frames in turns."""
    draws = random.Random(seed)
    seen: set[str] = set()
    while True:
        for language in (ENGLISH, MANDARIN):
            frame = draws.choice(FRAMES if language == ENGLISH else MANDARIN_FRAMES)
            pieces = _filled(frame, language, draws.random() < SWITCHED, draws)
            if (text := written(pieces)) not in seen and len(text) <= 90:
                seen.add(text)
                yield pieces


def written(pieces: Pieces) -> str:
    """Return a sentence as it is written, a space where the language changes."""
    return " ".join(text for _, text in pieces)


def _filled(frame: str, language: str, switches: bool, draws: random.Random) -> Pieces:
    """Fill a frame; languages of what follows each other are joined."""
    found: Pieces = []
    for part in _PART.split(frame):
        if not part.startswith("{"):
            found.append((language, part))
            continue
        slot = part[1:-1]
        if slot in KNOWN_NAMES:
            found.append((ENGLISH, draws.choice(KNOWN_NAMES[slot])))
        elif slot in WORDS and (language == MANDARIN) != (switches and draws.random() < SWITCHED):
            found.append((MANDARIN, draws.choice(WORDS[slot])))
        else:
            found += _filled(draws.choice(SLOTS[slot]), ENGLISH, switches and language == ENGLISH, draws)
    return _joined(found)


def _joined(pieces: Pieces) -> Pieces:
    joined: Pieces = []
    spoken = [(language, text) for language, text in pieces if text.strip()]
    for language, run in groupby(spoken, lambda piece: piece[0]):
        glue = " " if language == ENGLISH else ""
        joined.append((language, " ".join(glue.join(text for _, text in run).split())))
    return joined


def _spoken(
    name: str, chosen: Sequence[Pieces], variants: Sequence[str]
) -> Iterator[tuple[Utterance, bytes]]:
    """Yield utterances with their audio, each by a voice that speaks both languages."""
    draws = random.Random(f"{SEED} {name}")
    lines: list[list[Line]] = []
    for pieces in chosen:
        variant, pace, pitch = draws.choice(variants), draws.randint(140, 175), draws.randint(35, 65)
        voices = {language: Voice("espeak", f"{language}+{variant}", pace, pitch) for language, _ in pieces}
        lines.append([Line(text, voices[language], pace) for language, text in pieces])
    with Speakers() as speakers:
        spoken = iter(speakers.speak([line for sentence in lines for line in sentence]))
    for number, (sentence, pieces) in enumerate(zip(lines, chosen, strict=True)):
        samples = _together([trimmed(next(spoken)) for _ in sentence])
        languages = sorted({language for language, _ in pieces})
        utterance = Utterance(
            id=f"{name}-{number:04d}",
            audio="",
            duration=len(samples) / SAMPLE_RATE,
            text=written(pieces),
            speaker=sentence[0].voice.name.partition("+")[2].lower(),
            language="+".join(languages),
            tags={"engine": "espeak", "switched": "yes" if len(languages) > 1 else "no"},
        )
        yield utterance, encode_opus(levelled(samples, draws.uniform(-30, -18)), BITRATE)


def _together(pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Join pieces that each have a pause around them, without a longer one in between than one of them has."""
    pause = round(PAUSE * SAMPLE_RATE)
    inner = [
        piece[(0 if first else pause) : (None if last else -pause // 2)]
        for place, piece in enumerate(pieces)
        for first, last in [(place == 0, place == len(pieces) - 1)]
    ]
    return np.concatenate(inner)
