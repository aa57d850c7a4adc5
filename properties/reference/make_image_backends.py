"""Writes checksums of the resizes and of the pixel values of both image backends of Transformers, on odd sizes.

    python make_image_backends.py ../processors/image/image-backends.json

Images are computed from their number, here and in the test. Made with transformers 5.24.0, torch 2.15, torchvision 0.29 and Pillow 13.0 on a
processor with AVX2; torchvision's bilinear resize computes in float32 on a processor without it.
"""
import hashlib, json, sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
from transformers import GotOcr2ImageProcessor, InternVLVideoProcessor
from transformers.image_utils import SizeDict
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
rng = np.random.default_rng(524)
side = lambda low, high: int(rng.integers(low, high))
sha = lambda array: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def image(number, width, height):
    """Noise, black and white noise, or gradients, by the number modulo 3; uint8 [height, width, 3]."""
    i = np.arange(width * height * 3, dtype=np.uint64)
    h = ((i + number * 7919) * 2654435761) % 2**32
    h = ((h ^ (h >> np.uint64(15))) * 2246822519) % 2**32
    noise = (h >> np.uint64(24)).astype(np.uint8)
    pixel, channel = i // 3, i % 3
    smooth = ((pixel % width) * (channel + 1) + (pixel // width) * 2) % 256
    values = [noise, (noise > 127).astype(np.uint8) * 255, smooth.astype(np.uint8)][number % 3]
    return values.reshape(height, width, 3)


def resized(number):
    """A resize by each backend; from and to have odd sizes, one axis is sometimes equal."""
    longest = 900 if number % 25 == 0 else 60 if number % 2 else 220
    size, to = [side(1, longest), side(1, longest)], [side(1, longest // 2), side(1, longest // 2)]
    if number % 11 == 0: to[0] = size[0]
    if number % 11 == 1: to[1] = size[1]
    resample = 3 if number % 4 else [0, 1, 2, 3][number // 4 % 4]
    pixels = image(number, *size)
    torchvision, pillow = GotOcr2ImageProcessor(), GotOcr2ImageProcessorPil()
    shape = SizeDict(height=to[1], width=to[0])
    by_torch = torchvision.resize(torch.from_numpy(pixels).permute(2, 0, 1).contiguous()[None], shape, resample=resample)[0].permute(1, 2, 0).numpy()
    by_pillow = np.asarray(Image.fromarray(pixels).resize(tuple(to), resample))
    levels = int(np.abs(by_torch.astype(int) - by_pillow.astype(int)).max())
    return dict(number=number, size=size, to=to, resample=resample, torchvision=sha(by_torch), pillow=sha(by_pillow), levels=levels)


def processed(number):
    """Pixel values of an image with its tiles, and of a video's frames: always torchvision, as in Transformers."""
    tile, size = side(20, 70), [side(1, 400), side(1, 400)]
    options = dict(size=dict(height=tile, width=tile), image_mean=MEAN, image_std=STD, max_patches=side(1, 13), crop_to_patches=True)
    if number % 5 == 1: options["do_normalize"] = False
    if number % 5 == 2: options["do_rescale"] = False
    pil = Image.fromarray(image(number, *size))
    values = lambda processor: processor(pil, return_tensors="pt", **options)["pixel_values"].float().numpy()
    frames = np.stack([image(number + k, *size) for k in range(2)])
    video_options = {k: v for k, v in options.items() if k not in ("max_patches", "crop_to_patches")}
    video = InternVLVideoProcessor()(torch.from_numpy(frames).permute(0, 3, 1, 2), return_tensors="pt", **video_options)["pixel_values_videos"].float().numpy()
    torchvision, pillow = values(GotOcr2ImageProcessor()), values(GotOcr2ImageProcessorPil())
    return dict(number=number, size=size, tile=tile, maxPatches=options["max_patches"], doNormalize=number % 5 != 1, doRescale=number % 5 != 2,
                tiles=len(pillow), torchvision=sha(torchvision), pillow=sha(pillow), video=sha(video))


if __name__ == "__main__":
    cases = dict(resizes=[resized(i) for i in range(240)], processed=[processed(i) for i in range(40)])
    Path(sys.argv[1]).write_text("{\n" + ",\n".join(f'"{k}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]" for k, rows in cases.items()) + "\n}\n")
    print("largest difference of the backends:", max(row["levels"] for row in cases["resizes"]), "levels of 255")
