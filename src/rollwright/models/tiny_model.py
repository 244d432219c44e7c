"""Tiny models made on the spot, for tests and for worlds with a small language: no download, seconds to train.

The folder that `make_tiny_model` writes is a Hugging Face folder like any other, so every engine opens it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|pad|>", "<|im_start|>", "<|im_end|>")
# A word with the blank before it, one punctuation mark with the blank before it, or one blank: nothing is lost.
_WORDS = r" ?\w+| ?[^\w\s]|\s"


def make_tiny_model(
    folder: str | Path,
    *,
    texts: Sequence[str],
    tokenizer: Literal["word", "bpe"] = "word",
    vocab_size: int = 1024,
    hidden: int = 128,
    layers: int = 2,
    context_length: int = 1024,
    tied: bool = True,
    seed: int = 0,
) -> Path:
    """Write a random Llama and a tokenizer made from `texts` as a Hugging Face folder.

    Args:
        texts: what the world says and what the policy may answer; every word in them gets an id of its own ("word"), or
            the frequent ones do ("bpe").
        hidden: width, a multiple of 32 (the head size).
        tied: the output head shares the embedding.

    Returns:
        The folder.
    """
    tokens = tiny_tokenizer(texts, kind=tokenizer, vocab_size=vocab_size)
    model = tiny_llama(len(tokens), hidden=hidden, layers=layers, context_length=context_length, tied=tied, seed=seed)
    model.config.pad_token_id = model.generation_config.pad_token_id = tokens.pad_token_id
    model.config.eos_token_id = model.generation_config.eos_token_id = tokens.eos_token_id
    # Llama's default, 1, is <|im_start|> here.
    model.config.bos_token_id = model.generation_config.bos_token_id = None
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return Path(folder)


def tiny_llama(
    vocab_size: int,
    *,
    hidden: int = 128,
    layers: int = 2,
    context_length: int = 1024,
    tied: bool = True,
    seed: int = 0,
) -> LlamaForCausalLM:
    """A Llama with weights random but fixed by the seed; heads of 32, feed-forward three times the width."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from rollwright.batching import TREE_ATTENTION

    if hidden % 32:
        raise ValueError(f"hidden must be a multiple of 32, the head size; got {hidden}")
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=context_length,
        tie_word_embeddings=tied,
        initializer_range=hidden**-0.5,  # the usual 0.02 is for wide models: a narrow one would hardly see its input
    )
    config._attn_implementation = TREE_ATTENTION
    # The weights follow from the seed, and the caller's random numbers go on as before.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def tiny_tokenizer(
    texts: Iterable[str], *, kind: Literal["word", "bpe"] = "word", vocab_size: int = 1024
) -> PreTrainedTokenizerFast:
    """A tokenizer that loses nothing of any text, with a ChatML template.

    "word": each word and punctuation mark of `texts`, the blank before it included, is one token; text unknown to it
    falls back to bytes. "bpe": byte-level pairs, merged by frequency.
    """
    from transformers import PreTrainedTokenizerFast

    # The template's own words need tokens too, or roles would be spelt in bytes.
    texts = [*texts, "system\nuser\nassistant\n"]
    core = _word_tokenizer(texts, vocab_size) if kind == "word" else _bpe_tokenizer(texts, vocab_size)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        additional_special_tokens=[SPECIAL[1]],
        # The clean-up takes blanks away in decoding, and nothing may be lost.
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def _word_tokenizer(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """Whole words first (`ignore_merges`), bytes for everything else: there are no merges in between."""
    from tokenizers import Tokenizer, decoders, models

    counts = Counter(word for text in texts for word in re.findall(_WORDS, text))
    # Ties go by the word, so that the ids do not depend on the order of the texts.
    words = sorted(counts, key=lambda word: (-counts[word], word))
    # The bytes come before the words: whatever the words are, every text can be spelt.
    symbols = dict.fromkeys((*SPECIAL, *_byte_alphabet(), *map(_as_byte_symbols, words)))
    if len(symbols) > vocab_size:
        raise ValueError(
            f"the texts have {len(words)} different words, which with 256 bytes is more than vocab_size {vocab_size}: "
            "raise it, or use the tokenizer 'bpe'"
        )
    vocab = {symbol: index for index, symbol in enumerate(symbols)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    core.pre_tokenizer = _pre_tokenizer()
    core.decoder = decoders.ByteLevel()
    return core


def _bpe_tokenizer(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = _pre_tokenizer()
    core.decoder = decoders.ByteLevel()
    # A byte without a symbol would be dropped from texts that were not seen here.
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL), initial_alphabet=_byte_alphabet(), show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return core


def _pre_tokenizer() -> PreTokenizer:
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(_WORDS), behavior="isolated")
    # ByteLevel's own pattern would split words again, and its prefix space would add a blank.
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _byte_alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    # The library gives them in a new order each time.
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _as_byte_symbols(word: str) -> str:
    from tokenizers import pre_tokenizers

    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(word)
    return "".join(piece for piece, _ in pieces)
