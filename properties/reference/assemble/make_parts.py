"""Writes small parts of models as published, and the logits of Transformers for models that are put together from them:

    python properties/reference/assemble/make_parts.py properties/generation/assemble/parts

Written with Transformers 5.24. The logits are computed from the parts themselves: `Dinov2Model` or `ViTModel`, the projector of a small
InternVL, and the decoder with the mean embedding for each added token; no InternVL is built. A test assembles the same parts.
"""
import json, shutil, sys
from pathlib import Path
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (AutoModelForCausalLM, Dinov2Config, Dinov2Model, GptOssConfig, InternVLConfig, InternVLForConditionalGeneration,
                          LlamaConfig, Phi3Config, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config, ViTConfig, ViTModel)

out = Path(sys.argv[1])
shutil.rmtree(out, ignore_errors=True)
D, TOKENS = 32, 10  # width of the decoders, and number of tokens that are added to each tokenizer
TEXT = "A red circle and a blue square lie beside a green triangle. How many shapes are there in the image? There are three shapes."
# the parts of the published templates that matter here
TEMPLATES = dict(
    qwen2="{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}{%- endif %}{%- for message in messages %}{%- if message.role == 'user' or message.role == 'assistant' %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
    llama="{{- bos_token }}{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}",
    phi3="{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    gpt_oss="{%- for message in messages -%}{%- if message.role == 'assistant' -%}{{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|return|>' }}{%- else -%}{{- '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}",
)
SPECIAL = dict(
    qwen2=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    llama=["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    phi3=["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"],
    gpt_oss=["<|startoftext|>", "<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>"],
)
SPECIAL["qwen3"], TEMPLATES["qwen3"] = SPECIAL["qwen2"], None  # as a base model: ChatML tokens, no template


def tokenizer_of(name):
    """A byte-level BPE of 300 tokens with the special tokens of a decoder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL[name]])
    names = dict(bos_token=SPECIAL["llama"][0], eos_token="<|eot_id|>") if name == "llama" else dict(eos_token=SPECIAL[name][1 if name == "gpt_oss" else -1], pad_token=SPECIAL[name][0])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.chat_template = TEMPLATES[name]
    return fast


def fill(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters(): p.add_(0.2 * torch.randn_like(p))
    return model.eval()


def decoder_of(name):
    tokenizer = tokenizer_of(name)
    size = len(tokenizer)
    common = dict(hidden_size=D, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=size, max_position_embeddings=256, bos_token_id=None, pad_token_id=None, eos_token_id=tokenizer.eos_token_id)
    config = dict(
        qwen2=lambda: Qwen2Config(**common | dict(vocab_size=size + 4), tie_word_embeddings=True),  # rows without tokens, as published
        qwen3=lambda: Qwen3Config(**common, head_dim=8, tie_word_embeddings=False),
        llama=lambda: LlamaConfig(**common, tie_word_embeddings=False, rope_parameters=dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)),
        phi3=lambda: Phi3Config(**common, sliding_window=None),
        gpt_oss=lambda: GptOssConfig(**common, head_dim=8, num_local_experts=3, num_experts_per_tok=2, sliding_window=8),
    )[name]()
    model = fill(AutoModelForCausalLM.from_config(config), sum(map(ord, name)))
    model.to(torch.bfloat16 if name == "llama" else torch.float32).save_pretrained(out / name)
    tokenizer.save_pretrained(out / name)
    (out / name / "generation_config.json").write_text(json.dumps(dict(eos_token_id=tokenizer.eos_token_id)))
    return model.float(), tokenizer


def grown(model, tokenizer):
    """The decoder with rows for the added tokens: the mean of the tokenizer's rows."""
    size, tied = len(tokenizer), model.config.tie_word_embeddings
    tables = [model.get_input_embeddings().weight.data.clone()] + ([] if tied else [model.get_output_embeddings().weight.data.clone()])
    rows = max(tables[0].shape[0], size + TOKENS)
    model.resize_token_embeddings(rows, mean_resizing=False)
    dtype = torch.bfloat16 if tokenizer.bos_token else torch.float32
    for layer, table in zip([model.get_input_embeddings(), model.get_output_embeddings()], tables):
        layer.weight.data[: table.shape[0]] = table
        layer.weight.data[size : size + TOKENS] = table[:size].mean(0).to(dtype).float()
    return model


def shuffle(x):
    """Space-to-depth of `[1, n, n, C]` by 2. Source: `InternVLModel.pixel_shuffle`."""
    n, C = x.shape[1], x.shape[3]
    x = x.view(1, n, n // 2, C * 2).permute(0, 2, 1, 3).contiguous().view(1, n // 2, n // 2, C * 4)
    return x.permute(0, 2, 1, 3).contiguous().view(1, -1, C * 4)


def main():
    towers = dict(
        dinov2=fill(Dinov2Model(Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=4)), 1),
        vit=fill(ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=4)), 2),
    )
    for name, tower in towers.items(): tower.save_pretrained(out / name)
    (out / "dinov2/preprocessor_config.json").write_text(json.dumps(dict(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.2, 0.2], size=dict(shortest_edge=32), crop_size=dict(height=28, width=28))))
    text = dict(model_type="qwen2", hidden_size=D, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, vocab_size=8)
    vision = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[16, 16], patch_size=[4, 4])
    whole = fill(InternVLForConditionalGeneration(InternVLConfig(vision_config=vision, text_config=text, image_token_id=7)), 3)
    whole.save_pretrained(out / "internvl")
    expected = {}
    for tower, decoder in [("dinov2", "qwen2"), ("vit", "qwen3"), ("dinov2", "llama"), ("dinov2", "phi3"), ("vit", "gpt_oss")]:
        model, tokenizer = decoder_of(decoder)
        side, n = (24, 6) if tower == "dinov2" else (16, 4)
        size, image = len(tokenizer), len(tokenizer) + 2
        ids = [5, size, *[image] * (n // 2) ** 2, size + 1, 6, 7, 8]
        pixels = torch.sin(torch.arange(3 * side * side, dtype=torch.float64) * 0.37).float().reshape(1, 3, side, side)
        model = grown(model, tokenizer)
        with torch.no_grad():
            states = towers[tower](pixels) if tower == "dinov2" else towers[tower](pixels, interpolate_pos_encoding=False)
            features = whole.model.multi_modal_projector(shuffle(states.last_hidden_state[:, 1:].view(1, n, n, -1)))
            embeds = model.get_input_embeddings()(torch.tensor([ids]))
            embeds[0, 2 : 2 + (n // 2) ** 2] = features[0]
            logits = model(inputs_embeds=embeds).logits[0, -1]
        expected[decoder] = dict(tower=tower, side=side, ids=ids, logits=[round(x, 5) for x in logits.tolist()])
    (out / "expected.json").write_text(json.dumps(expected))
    for file in out.rglob("*.json"): file.write_text(json.dumps(json.loads(file.read_text()), ensure_ascii=False) + "\n")


main()
