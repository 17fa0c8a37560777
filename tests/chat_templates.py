# ruff: noqa: E501  (templates are as people write them)
"""Chat templates of the forms that well-known families have, and tokenizers with their markers."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CHATML = """{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system
Be of use.<|im_end|>
' }}{% endif %}{{ '<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

LLAMA3 = """{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}{%- set said = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set said = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' + date_string + '\\n\\n' + said + '<|eot_id|>' }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

MISTRAL = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}
{%- else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"""

PHI3 = """{% for message in messages %}{{ '<|' + message['role'] + '|>
' + message['content'] + '<|end|>
' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% endif %}"""

# earlier reasoning is taken away, as models that reason do it
THINKING = """{% for message in messages %}{% set content = message['content'] %}
{%- if message['role'] == 'assistant' and '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip() %}{% endif %}
{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% if enable_thinking is defined and not enable_thinking %}
{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"""

TEMPLATES = {  # its text, markers, whether it takes a system's turn, and the kind of tokenizer
    "chatml": (CHATML, ("<|im_start|>", "<|im_end|>"), True, "bytes"),
    "llama3": (LLAMA3, ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"), True, "bytes"),
    "gemma": (GEMMA, ("<start_of_turn>", "<end_of_turn>"), False, "gemma"),
    "mistral": (MISTRAL, (), False, "llama"),
    "phi3": (PHI3, ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), True, "llama"),
    "thinking": (THINKING, ("<|im_start|>", "<|im_end|>"), True, "bytes"),
}
CORPUS = ["the cat sat on the mat and the rain fell on the town, was it? Yes. No. One word: which Answer user system"]


def tokenizer(name):
    """A tokenizer of one of the forms: its vocabulary is letters and a few words."""
    text, markers, _, kind = TEMPLATES[name]
    special = ["<s>", "</s>", *markers]
    backend = _of_bytes(special) if kind == "bytes" else _of_pieces(special, kind)
    start = ("<s>", backend.token_to_id("<s>"))
    if kind != "bytes" or name == "llama3":
        backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[start])
    found = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", additional_special_tokens=list(markers)
    )
    found.chat_template = text
    return found


def _of_bytes(special):
    from tokenizers.trainers import BpeTrainer

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def _of_pieces(special, kind):
    words = ["▁the", "▁cat", "▁on", "▁Yes", "at", "th", "he", "▁t", "▁c", "▁ca", "▁th", "▁o", "▁Y", "▁Ye"]
    letters = dict.fromkeys([*map(chr, range(33, 127)), "▁", "\n"])
    pieces = [*special, "<0x0A>", *letters, *words]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    merges = [(w[:i], w[i:]) for w in sorted(words, key=len) for i in range(1, len(w))]
    merges = [(a, b) for a, b in merges if a in vocabulary and b in vocabulary]
    backend = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True))
    spaces = normalizers.Replace(" ", "▁")
    backend.normalizer = spaces if kind == "gemma" else normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    stripped = [] if kind == "gemma" else [decoders.Strip(" ", 1, 0)]
    reading = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *stripped]
    backend.decoder = decoders.Sequence(reading)
    backend.add_special_tokens(special)
    return backend
