"""The InternVL of the scripts that write quantized folders, and its logits for the inputs of `quantized-folders.test.ts`."""
import torch
from tokenizers import Tokenizer
from transformers import InternVLConfig, InternVLForConditionalGeneration


def small_internvl(kind, tokenizer, dtype):
    """A model of random weights that are equal in `dtype` and float32; its decoder is of model type `kind`, its vocabulary that of a folder."""
    vocabulary = Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
    text = dict(model_type=kind, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, vocab_size=vocabulary.get_vocab_size(), max_position_embeddings=256, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    vision = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=[28, 28], patch_size=[7, 7], attention_bias=True)
    torch.manual_seed(3)
    model = InternVLForConditionalGeneration(InternVLConfig(vision_config=vision, text_config=text, image_token_id=vocabulary.token_to_id("<IMG_CONTEXT>"), image_seq_length=4, tie_word_embeddings=False)).eval()
    with torch.no_grad():
        for p in model.parameters(): p.copy_((p + 0.05 * torch.randn_like(p)).to(dtype).float())
    return model


def logits_of(model):
    """Ids, and the logits of the last position for them and an image by a formula."""
    image = model.config.image_token_id
    ids = torch.tensor([[5, 6, image, image, image, image, 7, 8, 9, 10]])
    pixels = torch.sin(torch.arange(3 * 28 * 28, dtype=torch.float64) * 0.37).float().reshape(1, 3, 28, 28)
    with torch.no_grad(): return ids[0].tolist(), [round(x, 5) for x in model(input_ids=ids, pixel_values=pixels).logits[0, -1].tolist()]


PROJECTOR = [("layer_norm", "0"), ("linear_1", "1"), ("linear_2", "3")]
VISION = [("embeddings.cls_token", "embeddings.class_embedding"), ("embeddings.position_embeddings", "embeddings.position_embedding"), ("embeddings.patch_embeddings.projection", "embeddings.patch_embedding"),
          ("attention.projection_layer", "attn.proj"), ("layernorm_before", "norm1"), ("layernorm_after", "norm2"), ("lambda_1", "ls1"), ("lambda_2", "ls2"), ("encoder.layer.", "encoder.layers.")]


def opengvlab_tensors(model, exclude=()):
    """The tensors of a model under the names of OpenGVLab's layout, without those of the modules `exclude`; the decoder's keep their names."""
    tensors, state = {}, model.state_dict()
    for key, x in state.items():
        if key.rsplit(".", 1)[0] in exclude or any(f".{x}_proj." in key for x in "qkv") and key.startswith("model.vision_tower"): continue
        name = key.replace("model.language_model.", "language_model.model.").replace("lm_head.", "language_model.lm_head.").replace("model.vision_tower.", "vision_model.").replace("model.multi_modal_projector.", "mlp1.")
        for old, new in VISION if name.startswith("vision_model") else PROJECTOR if name.startswith("mlp1") else []: name = name.replace(old, new)
        tensors[name] = x
    for kind in ("weight", "bias"): tensors[f"vision_model.encoder.layers.0.attn.qkv.{kind}"] = torch.cat([state[f"model.vision_tower.encoder.layer.0.attention.{x}_proj.{kind}"] for x in "qkv"])
    return tensors


def opengvlab_config(llm):
    """config.json of OpenGVLab's layout with the decoder's configuration."""
    vision = dict(architectures=["InternVisionModel"], model_type="intern_vit_6b", hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=7, qkv_bias=True, qk_normalization=False, norm_type="layer_norm")
    return dict(architectures=["InternVLChatModel"], model_type="internvl_chat", downsample_ratio=0.5, dynamic_image_size=True, force_image_size=28, max_dynamic_patch=12, min_dynamic_patch=1, ps_version="v2", select_layer=-1, template="internlm2-chat", use_thumbnail=True, llm_config=llm, vision_config=vision)
