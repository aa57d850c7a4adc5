"""Makes an image of every shape with Pillow, for comparison, and a list of the contents.

    python make_shape_images.py FOLDER_OF_SCENES_PY
"""
import json
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

sys.path.insert(0, sys.argv[1])
from scenes import BACKGROUNDS, COLORS, SHAPES, draw_shape

here, rng, images = Path(__file__).parent, random.Random(5), {}
for shape in SHAPES:
    background = rng.choice(list(BACKGROUNDS))
    image = Image.new("RGB", (330, 220), BACKGROUNDS[background])
    items = []
    for i in range(6):
        x, y = 55 + 110 * (i % 3) + rng.uniform(-6, 6), 55 + 110 * (i // 3) + rng.uniform(-6, 6)
        items.append({"colour": rng.choice(list(COLORS)), "x": x, "y": y, "r": rng.uniform(15, 48)})
        draw_shape(ImageDraw.Draw(image), shape, COLORS[items[-1]["colour"]], x, y, items[-1]["r"])
    image.quantize(16, dither=Image.Dither.NONE).save(here / f"{shape}.png", optimize=True)
    images[shape] = {"background": background, "items": items}
(here / "images.json").write_text(json.dumps(images, indent=1) + "\n")
