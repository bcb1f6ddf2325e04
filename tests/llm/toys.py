"""Small tokenizers and chat templates, made on the spot; transformers is imported when one is asked for."""

from __future__ import annotations

from functools import cache
from typing import Any

# Templates. The first says what SmolLM2's own says, the second writes what Llama 2's does.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% set said = namespace(system='', next='user') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set said.system = '<<SYS>>\n' + message['content'] + '\n<</SYS>>\n\n' %}"
    "{% elif message['role'] != said.next %}{{ raise_exception('user and assistant must take turns') }}"
    "{% elif said.next == 'user' %}{{ bos_token + '[INST] ' + (said.system + message['content']) | trim + ' [/INST]' }}"
    "{% set said.system = '' %}{% set said.next = 'assistant' %}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% set said.next = 'user' %}{% endif %}"
    "{% endfor %}"
)
STRIPPING = (  # a header that is plain text, contents trimmed, no special token at the end of a turn but the last
    "{% for message in messages %}{{ '### ' + message['role'] + ':\n' + (message['content'] | trim) + '\n\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
)
IGNORES = (  # the generation prompt
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
)
REWRITES = (  # what was thought in earlier turns is left out
    "{% for message in messages %}{% set content = message['content'] %}"
    "{% if not loop.last and '</think>' in content %}{% set content = content.split('</think>')[-1].strip() %}"
    "{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKS = CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n'")
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TEXT = (
    "Natalia sold 48 clips in April, and then half as many in May. How many did she sell altogether?\n"
    "She sold 48/2 = <<48/2=24>>24 clips in May.\nAltogether that is 48+24 = <<48+24=72>>72 clips.\n#### 72\n\n"
    "What a piece of work is a man! How noble in reason, how infinite in faculty;\n"
    "in form and moving how express and admirable. You are a helpful assistant.\n"
    "The user asks a question, the assistant answers it; the system says how. 0123456789\n"
)


@cache
def bytelevel(template: str | None = SMOLLM2, *, trim: bool = False, vocabulary: int = 400, pad: bool = True) -> Any:
    """A byte-level BPE like SmolLM2's: `<|endoftext|>`, `<|im_start|>` (bos), `<|im_end|>` (eos, and pad)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    special = [AddedToken(n, special=True, normalized=False) for n in names]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([TEXT] * 3, trainer)
    if trim:
        made.post_processor = processors.ByteLevel(trim_offsets=True)
    given = {"pad_token": "<|im_end|>"} if pad else {}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>", **given
    )
    fast.chat_template = template
    return fast


@cache
def metaspace(template: str | None = LLAMA2) -> Any:
    """A BPE like Llama 2's: blanks are `▁`, unknown characters are bytes, `<s>` goes before every text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    names = ["<unk>", "<s>", "</s>"]
    special = [AddedToken(n, special=True, normalized=False) for n in names]
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    made.train_from_iterator(TEXT.split(), trainer)
    made.add_tokens(bytes_)  # replaced below: byte pieces must be in the model's own vocabulary
    made = _with_bytes(made, names, bytes_)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", made.token_to_id("<s>"))]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = template
    return fast


def _with_bytes(made: Any, names: list[str], bytes_: list[str]) -> Any:
    """The same tokenizer with byte pieces in its own vocabulary, for `byte_fallback`."""
    import json

    from tokenizers import Tokenizer

    text = json.loads(made.to_str())
    known = [t for t in sorted(text["model"]["vocab"], key=text["model"]["vocab"].get) if t not in names + bytes_]
    text["model"]["vocab"] = {t: i for i, t in enumerate([*names, *bytes_, *known])}
    text["added_tokens"] = [t | {"id": i} for i, t in enumerate(text["added_tokens"][: len(names)])]
    return Tokenizer.from_str(json.dumps(text))


def llama(tokenizer: Any, *, layers: int = 2, width: int = 32, seed: int = 0) -> Any:
    """A tiny Llama for a tokenizer, float32, in evaluation mode."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()
