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
