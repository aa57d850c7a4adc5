"""Writes results of Pillow, torchvision and Transformers for small inputs, for the tests of processors/.

    python make_processor_cases.py ../../models/demo ../processors/images ../processors/cases.json

Made with transformers 5.24.0, torch 2.15, torchvision, Pillow 13.0 and numpy.
"""
import base64, itertools, json, sys
from pathlib import Path
import numpy as np, torch
import torchvision.transforms.v2.functional as F
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from transformers import GotOcr2ImageProcessor, InternVLVideoProcessor, InternVLProcessor, AutoTokenizer
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.video_utils import VideoMetadata

rng = np.random.default_rng(11)
b64 = lambda a: base64.b64encode(np.ascontiguousarray(a).tobytes()).decode()
integer = lambda low, high: int(rng.integers(low, high))


def resizes():
    rows = []
    for i in range(72):
        width, height, to_width, to_height = integer(1, 24), integer(1, 24), integer(1, 24), integer(1, 24)
        if i % 9 == 1: to_width = width
        if i % 9 == 2: to_height = height
        if i % 9 == 3: height, to_height = 24, integer(1, 8)  # Pillow 13 takes rows first
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if i % 2: pixels = (pixels > 127).astype(np.uint8) * 255  # hard edges overshoot, so clipping shows
        torchvision, resample = i % 6 == 5, 3 if i % 3 else i // 3 % 6
        if torchvision:
            frame = torch.from_numpy(pixels).permute(2, 0, 1)[None]
            out = F.resize(frame, [to_height, to_width], InterpolationMode.BICUBIC, antialias=True)[0].permute(1, 2, 0).numpy()
        else: out = np.asarray(Image.fromarray(pixels).resize((to_width, to_height), resample))
        rows.append(dict(size=[width, height], to=[to_width, to_height], resample=resample, torchvision=torchvision, pixels=b64(pixels), expected=b64(out)))
    return rows


def tile_counts():
    processor = GotOcr2ImageProcessor(size=dict(height=448, width=448)); rows = []
    for i in range(300):
        low = integer(1, 5); high = integer(low, 25)
        height, width = (integer(1, 4000), integer(1, 4000)) if i % 3 else (integer(1, 13) * 112, integer(1, 13) * 112)  # exact ties
        rows.append([height, width, low, high, processor.get_number_of_image_patches(height, width, dict(min_patches=low, max_patches=high, crop_to_patches=True))])
    return rows


def frame_indices():
    processor = InternVLVideoProcessor(); rows = []
    for i in range(150):
        total, rate = integer(1, 3000), float(rng.choice([23.976, 24, 25, 29.97, 30, 60]))
        count, fps = (integer(1, min(total, 80) + 1), None) if i % 3 else (None, float(rng.choice([0.5, 1, 2, 3.7])))
        shift = [True, False, 0, 0.5, integer(0, total)][i % 5]
        if fps and int(total / rate * fps) < 1: continue
        indices = processor.sample_frames(VideoMetadata(total_num_frames=total, fps=rate), num_frames=count, fps=fps, initial_shift=shift).tolist()
        rows.append(dict(total=total, rate=rate, numFrames=count, fps=fps, initialShift=shift, indices=indices))
    return rows


def frame_indices_rounded():
    """Samplings where float32 arithmetic decides: each number rounded on its own would give another frame."""
    generator, processor, rows = np.random.default_rng(23), InternVLVideoProcessor(), []
    for i in range(4000):
        total, rate = int(generator.integers(200, 60000)), float(generator.choice([23.976, 24, 25, 29.97, 30, 60, 30000 / 1001]))
        count = int(generator.integers(1, min(total, 2000) + 1))
        shift = [True, False, 0.5, int(generator.integers(0, 100))][i % 4]
        indices = processor.sample_frames(VideoMetadata(total_num_frames=total, fps=rate), num_frames=count, initial_shift=shift).tolist()
        step = total / count
        start = step / 2 if shift is True else float(shift)
        if indices != [int(np.float32(start + k * step)) for k in range(len(indices))]:
            rows.append(dict(total=total, rate=rate, numFrames=count, fps=None, initialShift=shift, indices=indices))
    return sorted(rows, key=lambda row: len(row["indices"]))[:12]


TEXTS = ["Hello, world!", "  leading and trailing  ", "naïve café — déjà vu", "数え切れない星が空に輝く。", "🐝🌸 joined 👩‍👩‍👧", "x=1234567890; y+=3.14e-10",
         "line\n\nbreaks\r\n\ttabs", "<img>not an image</img>", "<|im_start|>user\nhi<|im_end|>", "A\u030angstro\u0308m", ""]
text, image = lambda t: dict(type="text", text=t), lambda name: dict(type="image", path=name)
BATCHES = [
    dict(options=dict(max_patches=4), batch=[[dict(role="user", content=[image("rgb.png"), text("What is this?")])]]),
    dict(options=dict(max_patches=6), batch=[
        [dict(role="system", content="You look closely."), dict(role="user", content=[image("orientation-6.jpg"), text("and"), image("palette.gif"), text("\nWhich is larger?")])],
        [dict(role="user", content="Hello there.")],
        [dict(role="user", content=[text("One"), image("cmyk.jpg")]), dict(role="assistant", content="An image."), dict(role="user", content="Sure?")]]),
    dict(options=dict(), batch=[[dict(role="user", content=[dict(type="video", frames=["rgb.png", "lossless.webp", "icc.png"]), text("What moves?")])]]),
    dict(options=dict(crop_to_patches=False, do_normalize=False), batch=[[dict(role="user", content=[image("grey-16.png"), text("Describe it.")])]]),
]


def chats(folder, images):
    processor = InternVLProcessor.from_pretrained(folder)
    backends = dict(torchvision=processor.image_processor, pillow=GotOcr2ImageProcessorPil.from_pretrained(folder))
    load = lambda name: ImageOps.exif_transpose(Image.open(images / name)).convert("RGB")
    rows = []
    for case, backend in itertools.product(BATCHES, backends):
        processor.image_processor = backends[backend]
        items = [item for messages in case["batch"] for m in messages if isinstance(m["content"], list) for item in m["content"]]
        image_list = [load(i["path"]) for i in items if i["type"] == "image"]
        videos = [np.stack([np.asarray(load(f)) for f in i["frames"]]) for i in items if i["type"] == "video"]
        prompts = [processor.apply_chat_template(m, add_generation_prompt=True, tokenize=False) for m in case["batch"]]
        x = processor(text=prompts, images=image_list or None, videos=videos or None, padding=True, return_tensors="pt", **case["options"])
        pixels = x["pixel_values"].float()
        rows.append(dict(case, backend=backend, prompts=prompts, input_ids=x["input_ids"].tolist(), attention_mask=x["attention_mask"].tolist(), shape=list(pixels.shape),
                         mean=pixels.mean((2, 3)).tolist(), std=pixels.std((2, 3)).tolist(), samples=pixels[:, :, ::37, ::41].flatten().tolist()))
    return rows


if __name__ == "__main__":
    folder, images, out = map(Path, sys.argv[1:])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cases = dict(resizes=resizes(), tile_counts=tile_counts(), frame_indices=frame_indices() + frame_indices_rounded(), tokens=[[t, tokenizer(t)["input_ids"]] for t in TEXTS], chats=chats(folder, images))
    out.write_text("{\n" + ",\n".join(f'"{k}": [\n' + ",\n".join(json.dumps(row) for row in v) + "\n]" for k, v in cases.items()) + "\n}\n")
