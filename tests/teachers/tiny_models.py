"""Recognisers of other libraries with weights drawn at random: they say nonsense, through all of the real code."""

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

LETTERS = "etaoinshrdlucmfwypvbgkjqxz"


def save_ctc(folder: Path, *, normalised_by_mask: bool) -> Path:
    """Save a wav2vec 2.0 that spells; with layer norm it is told what is padding, with group norm it is not."""
    folder.mkdir(parents=True)
    vocabulary = {token: n for n, token in enumerate(["<pad>", "<unk>", "|", *LETTERS])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(
        str(folder / "vocab.json"), bos_token=None, eos_token=None, pad_token="<pad>", unk_token="<unk>"
    )
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=normalised_by_mask)
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 8, 4),
        conv_stride=(10, 8, 4),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer" if normalised_by_mask else "group",
        initializer_range=0.5,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    return folder


def save_whisper(folder: Path) -> Path:
    """Save an English Whisper whose tokens are bytes."""
    folder.mkdir(parents=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>"]
    special += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    stamps = [f"<|{n * 0.02:.2f}|>" for n in range(1501)]
    vocabulary = {letter: n for n, letter in enumerate(letters)}
    built = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens([*special, *stamps])
    built.save(str(folder / "tokenizer.json"))
    number = built.token_to_id
    tokenizer = transformers.WhisperTokenizer(tokenizer_object=built)
    torch.manual_seed(1)
    config = transformers.WhisperConfig(
        vocab_size=built.get_vocab_size(),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        init_std=0.6,
        decoder_start_token_id=number("<|startoftranscript|>"),
        bos_token_id=number("<|endoftext|>"),
        eos_token_id=number("<|endoftext|>"),
        pad_token_id=number("<|endoftext|>"),
    )
    model = transformers.WhisperForConditionalGeneration(config)
    spoken = {*LETTERS, "Ġ", "<|endoftext|>"}
    unspoken = [n for token, n in built.get_vocab().items() if token not in spoken]
    with torch.no_grad():
        model.get_input_embeddings().weight[unspoken] *= 0.01  # the output's too: they are tied
    generation = model.generation_config
    generation._from_model_config = False  # else what is of speech is not written
    generation.no_timestamps_token_id = number("<|notimestamps|>")
    generation.alignment_heads = [[0, 0]]
    generation.is_multilingual = False
    generation.max_length = 60
    generation.suppress_tokens = unspoken
    generation.begin_suppress_tokens = [number("<|endoftext|>")]
    model.save_pretrained(folder)
    transformers.WhisperProcessor(transformers.WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    built.save(str(folder / "tokenizer.json"))
    return folder


def convert_whisper(saved: Path, folder: Path) -> Path:
    """Convert what :func:`save_whisper` saved to CTranslate2's form."""
    import ctranslate2.converters

    converter = ctranslate2.converters.TransformersConverter(str(saved), copy_files=["tokenizer.json"])
    converter.convert(str(folder))
    return folder
