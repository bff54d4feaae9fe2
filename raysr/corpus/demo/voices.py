"""Who speaks in the demo corpus: voices of three synthesis engines, no voice in two parts of it."""

from raysr.corpus.synthesis.voices import Voice


def _espeak(table: str) -> tuple[Voice, ...]:
    """Read lines of ``accent+variant rate pitch``."""
    rows = [line.split() for line in table.split("\n") if line.strip()]
    return tuple(Voice("espeak", name, int(rate), int(pitch)) for name, rate, pitch in rows)


LABELLED = (
    *_espeak("""
        en-us+m3       165  45
        en-us+f2       160  55
        en+f4          170  50
        en+m7          155  50
    """),
    Voice("flite", "rms", 160),
)

UNLABELLED = (
    *_espeak("""
        en-us+Alex              170  50
        en-us+Annie             165  55
        en-us+f3                175  60
        en-us+m1                155  35
        en-us-nyc+Mike          165  45
        en-us-nyc+f5            170  50
        en-us-nyc+steph         160  60
        en+belinda              165  50
        en+m5                   175  40
        en-gb-x-rp+paul         160  45
        en-gb-x-rp+Alicia       170  55
        en-gb-scotland+robert   160  40
        en-gb-scotland+f1       165  55
        en-gb-x-gbclan+david    170  45
        en-gb-x-gbclan+linda    160  60
        en-gb-x-gbcwmd+Michael  165  40
        en-gb-x-gbcwmd+f5       175  45
        en-029+victor           165  45
        en-029+aunty            160  50
        en-us+klatt3            160  50
    """),
    Voice("flite", "kal", 165),
    Voice("flite", "kal16", 165),
    Voice("flite", "kal16", 160, warp=1.15),
    Voice("flite", "kal16", 170, warp=0.92),
    Voice("flite", "rms", 165, warp=1.12),
    Voice("flite", "rms", 170, warp=0.9),
    Voice("flite", "slt", 165),
    Voice("flite", "slt", 170, warp=1.1),
)

DEV = _espeak("""
        en-us+Gene              165  50
        en+shelby               165  55
        en-us-nyc+travis        170  45
        en-gb-scotland+grandma  155  50
        en-gb-x-rp+iven         165  50
    """)

TEST = (
    *_espeak("""
        en-us+john              165  45
        en-us+anika             170  55
        en-us-nyc+m8            160  45
        en+ed                   170  50
        en+Andrea               160  55
        en-gb-x-rp+m4           165  40
        en-gb-scotland+max      160  50
        en-gb-x-gbclan+Jacky    165  50
        en-gb-x-gbcwmd+adam     170  45
        en-029+Lee              165  50
    """),
    Voice("flite", "awb", 160),
)

ENGINE = (
    Voice("festival", "ked_diphone", 165),
    Voice("festival", "ked_diphone", 165, warp=1.1),
    Voice("festival", "ked_diphone", 160, warp=0.92),
)
