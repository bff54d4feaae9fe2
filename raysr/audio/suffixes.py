"""What names of audio files end in."""

from raysr.audio.container import HEADERLESS

# fmt: off
AUDIO = HEADERLESS.keys() | {
    ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au", ".avi", ".awb",
    ".caf", ".flac", ".flv", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4",
    ".mpeg", ".mpg", ".nist", ".nut", ".oga", ".ogg", ".ogv", ".opus", ".pcm", ".ra", ".raw", ".rm",
    ".snd", ".sph", ".spx", ".ts", ".tta", ".voc", ".w64", ".wav", ".wave", ".weba", ".webm", ".wma",
    ".wmv", ".wv",
}
# fmt: on
"""In lower case; films have sound, too."""
