"""Writes reference cases of the relatives of InternVL: small random models, in the format of the first cases, by the same `make_reference.py`
(transformers 5.24).

    python properties/reference/relatives/make_relatives.py --reference FOLDER/make_reference.py --out cases [--seed 11] [--small] [--only NAME ...]

Then: npm run conformance -- cases. `--small` writes the cases of `properties/conformance/relatives`: one input with the image
`generation/demo/squares.png`, and a vocabulary of 285 tokens. Qianfan-OCR is
run by its own classes. The other relatives have the parts of InternVL, so InternVL's classes compute them, with the difference that the published
code makes: the transposed pixel shuffle of `ps_version` v1 (`InternVLChatModel.pixel_shuffle`), and InternVL-U's table of special tokens
(`InternVLUChatModel.replace_img_special_tokens`). The fields of their config.json are those of the published configuration classes:
`InternVLChatConfig` (OpenGVLab/InternVL), `InternVLUChatConfig` (OpenGVLab/InternVL-U), `InternS1Config` (InternLM's modular code).
"""
import argparse, importlib.util, json, shutil
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import InternVLForConditionalGeneration, InternVLModel, QianfanOCRConfig, QianfanOCRForConditionalGeneration, QianfanOCRProcessor

VIT_6B = dict(norm_type="rms_norm", use_qk_norm=True, attention_bias=False)
QWEN3 = dict(model_type="qwen3", head_dim=12, attention_bias=False, num_attention_heads=3, num_key_value_heads=1)
LLAMA = dict(model_type="llama", num_attention_heads=4, num_key_value_heads=2)
# `original`: the decoder in OpenGVLab's layout; `json`: fields of config.json; `type`: model_type where it is not InternVL's
KINDS = {
    "qianfan-ocr": dict(like="baidu/Qianfan-OCR", type="qianfan_ocr", text=QWEN3 | dict(tie_word_embeddings=False), vision=dict(drop_path_rate=0.1)),
    "interns1-mini": dict(like="internlm/Intern-S1-mini", type="interns1", text=QWEN3, json=dict(architectures=["InternS1ForConditionalGeneration"], model_type="interns1",
                          auto_map={"AutoConfig": "configuration_interns1.InternS1Config", "AutoModel": "modeling_interns1.InternS1ForConditionalGeneration"}),
                          vision_json=dict(model_type="interns1_vision", drop_path_rate=0.1)),
    "interns1-moe": dict(like="internlm/Intern-S1", type="interns1", vision=VIT_6B, text=dict(model_type="qwen3_moe", head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12,
                         decoder_sparse_step=1, norm_topk_prob=True), json=dict(architectures=["InternS1ForConditionalGeneration"], model_type="interns1"), vision_json=dict(model_type="interns1_vision", drop_path_rate=0.0)),
    "chat-v1-2": dict(like="OpenGVLab/InternVL-Chat-V1-2", original="llama", vision=VIT_6B, text=LLAMA | dict(rope_theta=5000000.0), shuffle="v1",
                      json=dict(ps_version="v1", template="Hermes-2", dynamic_image_size=False, use_thumbnail=False, max_dynamic_patch=6, pad2square=False)),
    "chat-v1-5": dict(like="OpenGVLab/InternVL-Chat-V1-5", original="internlm2", vision=VIT_6B, text=LLAMA, json=dict(template="internlm2-chat", pad2square=False)),
    "sensenova-si": dict(like="sensenova/SenseNova-SI-InternVL3-2B", original="qwen2", json=dict(system_message=None, hidden_size=32, tie_word_embeddings=False, use_backbone_lora=0, use_llm_lora=0)),
    "vintern": dict(like="5CD-AI/Vintern-1B-v2", original="qwen2", text=dict(num_attention_heads=7, num_key_value_heads=1, hidden_size=28), json=dict(template="Hermes-2")),
    "qianfan-vl": dict(like="baidu/Qianfan-VL-8B", original="llama", text=LLAMA | dict(rope_theta=500000.0, rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                       "original_max_position_embeddings": 32}), json=dict(architectures=["QianfanVLChatModel"], model_type="qianfanvl_chat")),
    "internvl-u": dict(like="OpenGVLab/InternVL-U, folder vlm", original="qwen3", text=QWEN3, special=True, json=dict(architectures=["InternVLUChatModel"], model_type="internvlu_chat", ps_version="v1",
                       anyres_image_size=False, thumbnail_pos="start", enable_multi_scale=False, scale_downsample_ratio=0.5, extra_select_layer=-1)),
}
SPECIAL = ["</box>", "<box>", "<IMG_CONTEXT>", "</img>", "<img>", "</quad>", "<quad>", "</ref>", "<ref>", "<img_uncond>"]

parser = argparse.ArgumentParser()
parser.add_argument("--reference", required=True, type=Path); parser.add_argument("--out", required=True, type=Path)
parser.add_argument("--seed", type=int, default=11); parser.add_argument("--small", action="store_true"); parser.add_argument("--only", nargs="*"); args = parser.parse_args()
spec = importlib.util.spec_from_file_location("make_reference", args.reference)
reference = importlib.util.module_from_spec(spec); spec.loader.exec_module(reference)
image, text, conversation = reference.image, reference.text, reference.conversation
shuffle = InternVLModel.pixel_shuffle


def shuffle_v1(self, x, scale_factor=0.5):
    """The shuffle without the permutation at its end."""
    return shuffle(self, x, scale_factor).permute(0, 2, 1, 3).contiguous()


def with_special_tokens(model, ids):
    """Gives a model InternVL-U's table of special tokens."""
    model.model.special_token_embedding = torch.nn.Embedding(len(ids), model.config.text_config.hidden_size)
    table = model.model.special_token_embedding

    def replace(module, inputs, output):
        for i, token in enumerate(ids): output = torch.where((inputs[0] == token)[..., None], table.weight[i], output)
        return output
    model.get_input_embeddings().register_forward_hook(replace)


def edit_json(path, change):
    value = json.loads(path.read_text()); change(value); path.write_text(json.dumps(value, indent=1))


def renamed(name):
    """Qianfan-OCR's names in Transformers as those of InternVL, which are the keys of the module tree."""
    return name.replace("vision_tower.layers.", "vision_tower.encoder.layer.")


def finish(name, kind, folder, config):
    """Makes the folder of InternVL that of the relative."""
    if kind.get("type") == "interns1":
        edit_json(folder / "checkpoint/config.json", lambda c: (c.update(kind["json"]), c["vision_config"].update(kind["vision_json"])))
    if kind.get("type") == "qianfan_ocr":
        for path in folder.glob("*.json"):
            edit_json(path, lambda c: [c.update({key: {renamed(k): v for k, v in c[key].items()}}) for key in ("gradient_norms", "parameters") if key in c])
    if "original" not in kind: return
    shutil.rmtree(folder / "checkpoint")
    t = {k: v for k, v in config.text_config.to_dict().items() if k not in ("bos_token_id", "eos_token_id", "pad_token_id")}
    names = dict(llama="LlamaForCausalLM", qwen2="Qwen2ForCausalLM", qwen3="Qwen3ForCausalLM", internlm2="InternLM2ForCausalLM")
    rope = t.pop("rope_parameters", None) or {}
    def change(c):
        c.update(kind["json"])
        if kind["original"] == "internlm2": return
        scaling = {k: v for k, v in rope.items() if k != "rope_theta"} if rope.get("rope_type", "default") != "default" else None
        c["llm_config"] = t | dict(architectures=[names[kind["original"]]], model_type=kind["original"], rope_theta=rope.get("rope_theta", 10000.0), rope_scaling=scaling)
    edit_json(folder / "checkpoint-original/config.json", change)
    weights = folder / "checkpoint-original/model.safetensors"
    wrong = "language_model.special_token_embedding.weight"
    state = load_file(weights)
    if wrong in state: save_file({k.removeprefix("language_model.") if k == wrong else k: v for k, v in state.items()}, weights, metadata={"format": "pt"})


def run(name, kind, seed, tokenizer):
    processor = reference.processor_for(tokenizer, 28 if args.small else 56, 4)
    build, configure = InternVLForConditionalGeneration, reference.InternVLConfig
    if kind.get("type") == "qianfan_ocr":
        template = reference.TEMPLATE.replace("<IMG_CONTEXT>", "<image>")
        processor = QianfanOCRProcessor(image_processor=processor.image_processor, tokenizer=tokenizer, image_seq_length=4, chat_template=template)
        build, configure = QianfanOCRForConditionalGeneration, QianfanOCRConfig
    if kind.get("special"):
        ids = tokenizer.convert_tokens_to_ids(SPECIAL)
        build = lambda config: (model := InternVLForConditionalGeneration(config), with_special_tokens(model, ids))[0]
    InternVLModel.pixel_shuffle = shuffle_v1 if kind.get("shuffle") == "v1" else shuffle
    captured = []
    reference.InternVLConfig = lambda **fields: (captured.append(configure(**fields)), captured[-1])[1]
    reference.InternVLForConditionalGeneration = build
    inputs = dict(reference.INPUTS)
    if kind.get("type") == "qianfan_ocr": reference.INPUTS = {k: v for k, v in inputs.items() if not v.get("video")}
    if kind.get("json", {}).get("dynamic_image_size") is False: reference.INPUTS = {k: v | dict(processor=dict(max_patches=1)) for k, v in inputs.items()}  # one tile an image
    small = dict(hidden_size=16, num_attention_heads=2, intermediate_size=20, image_size=[28, 28], patch_size=[7, 7]) if args.small else {}
    decoder = dict(hidden_size=24, intermediate_size=20) if args.small else {}
    reference.run_model(name, kind | dict(vision=small | kind.get("vision", {}), text=decoder | kind.get("text", {})), args.out, seed, tokenizer, processor)
    reference.INPUTS, reference.InternVLConfig = inputs, configure
    finish(name, kind, args.out / name, captured[-1])
    if args.small: (args.out / name / "training.json").unlink()


configuration = reference.InternVLConfig
if args.small:
    reference.IMAGES = Path(__file__).parents[3] / "generation/demo"
    reference.INPUTS = {"one-image": dict(batch=[conversation(image("squares.png"), text("What is it?"))], processor=dict(max_patches=2))}
corpus = [args.reference.read_text()] + [json.dumps(reference.INPUTS)] * 3
tokenizer = reference.tiny_tokenizer(corpus, 270 if args.small else 640)
tokenizer.add_tokens([AddedToken("<img_uncond>", special=True, normalized=False)])
for i, (name, kind) in enumerate(KINDS.items()):
    reference.InternVLConfig = configuration
    if not args.only or name in args.only: run(name, kind, 1000 * args.seed + i, tokenizer)
