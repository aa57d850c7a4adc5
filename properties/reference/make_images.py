"""Writes small images of every format and mode that Pillow opens, and the pixels that Pillow decodes.

    python make_images.py ../processors/images

`expected.json` holds, for each file, `ImageOps.exif_transpose(image).convert("RGB")`: width, height and the bytes in base64.
Needs Pillow (the committed files were written by 13.0) and numpy.
"""
import base64, json, sys
from pathlib import Path
import numpy as np
from PIL import Image, ImageCms, ImageOps

W, H = 23, 17
rng = np.random.default_rng(7)
y, x = np.mgrid[0:H, 0:W]
smooth = np.stack([x * 11, y * 15, (x * 7 + y * 5) % 256], -1).astype(np.uint8)
noise = rng.integers(0, 256, (H, W, 3), dtype=np.uint8)
rgb = Image.fromarray(smooth)
alpha = Image.fromarray(((x * 13 + y * 29) % 256).astype(np.uint8))
rgba = rgb.copy(); rgba.putalpha(alpha)
grey = rgb.convert("L")
cmyk = Image.fromarray(np.concatenate([noise, smooth[..., :1] // 3], -1), "CMYK")
palette = Image.fromarray(noise).quantize(16)
deep = rng.integers(0, 65536, (H, W), dtype=np.uint16); deep[:4] = x[:4] * 11


def oriented(n):
    exif = Image.Exif(); exif[0x0112] = n
    return exif


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.*"): old.unlink()
    save = lambda image, name, **options: image.save(out / name, **options)
    save(rgb, "rgb.png"); save(rgba, "rgba.png"); save(grey, "grey.png")
    save(Image.merge("LA", (grey, alpha)), "grey-alpha.png")
    save(Image.fromarray(noise[..., 0] > 128), "one-bit.png")
    save(palette, "palette.png"); save(palette, "palette-transparent.png", transparency=3)
    save(palette, "palette-alphas.png", transparency=bytes(range(0, 256, 16)))
    save(Image.fromarray(noise).quantize(4), "palette-2-bit.png", bits=2)
    save(rgb, "rgb-transparent-colour.png", transparency=tuple(int(v) for v in smooth[3, 3]))
    save(grey, "grey-transparent-value.png", transparency=int(np.asarray(grey)[3, 3]))
    save(Image.fromarray(deep), "grey-16.png")
    write_16_bit(out / "rgb-16.png", np.stack([deep, deep.T.copy().reshape(H, W), deep[::-1]], -1))
    write_16_bit(out / "rgba-16.png", np.stack([deep, deep[::-1], deep[:, ::-1], deep], -1))
    write_16_bit(out / "grey-alpha-16.png", np.stack([deep, deep[::-1]], -1))
    save(rgb, "icc.png", icc_profile=profile()); save(rgb, "icc.jpg", icc_profile=profile(), quality=90)
    save(rgb, "rgb.jpg", quality=90); save(rgb, "rgb-444.jpg", quality=75, subsampling=0)
    save(rgb, "progressive.jpg", quality=80, progressive=True); save(grey, "grey.jpg")
    save(cmyk, "cmyk.jpg", quality=95)
    invert_adobe(cmyk, out / "cmyk-plain.jpg")
    for n in range(1, 9): save(rgb, f"orientation-{n}.jpg", quality=90, exif=oriented(n))
    save(rgb, "orientation-6.png", exif=oriented(6)); save(rgba, "orientation-6.webp", exif=oriented(6), lossless=True, exact=True)
    save(cmyk, "orientation-8-cmyk.jpg", exif=oriented(8))
    save(palette, "palette.gif"); save(palette, "transparent.gif", transparency=5)
    save(palette, "animated.gif", save_all=True, append_images=[palette.transpose(Image.Transpose.ROTATE_180)], duration=50)
    save(grey, "grey.gif")
    save(rgb, "lossy.webp", quality=80); save(rgb, "lossless.webp", lossless=True)
    save(rgba, "alpha.webp", lossless=True, exact=True); save(rgba, "lossy-alpha.webp", quality=80)
    save(rgb, "animated.webp", save_all=True, append_images=[rgb.transpose(Image.Transpose.ROTATE_180)], lossless=True)
    save(rgb, "rgb.tiff"); save(rgb, "lzw.tiff", compression="tiff_lzw"); save(cmyk, "cmyk.tiff"); save(grey, "grey.tiff")
    save(Image.fromarray(deep), "grey-16.tiff"); save(palette, "palette.tiff"); save(rgba, "rgba.tiff")
    save(rgb, "orientation-3.tiff", tiffinfo={274: 3}); save(Image.fromarray(noise[..., 0] > 128), "one-bit.tiff")
    save(rgb.resize((1, 1)), "1x1.png")
    expected = {}
    for file in sorted(out.iterdir()):
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        expected[file.name] = dict(width=image.width, height=image.height, rgb=base64.b64encode(image.tobytes()).decode())
    (out / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")


def profile() -> bytes:
    """sRGB's profile with its red and blue primaries exchanged: applying the profile changes the pixels"""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.find(b"rXYZ"), data.find(b"bXYZ")
    data[red:red + 4], data[blue:blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def write_16_bit(path: Path, pixels: np.ndarray) -> None:
    """a PNG of 16 bits a channel, which Pillow reads but does not write in colour"""
    import struct, zlib
    kind = {2: 4, 3: 2, 4: 6}[pixels.shape[-1]]
    chunk = lambda tag, data: struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def invert_adobe(image: Image.Image, path: Path) -> None:
    """a CMYK JPEG without Adobe's marker: its values are not inverted"""
    image.save(path, quality=95)
    data = path.read_bytes(); at = data.find(b"\xff\xee")
    path.write_bytes(data[:at] + data[at + 2 + int.from_bytes(data[at + 2:at + 4], "big"):])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
