"""Writes small images of every format and mode that Pillow opens, and the pixels that Pillow decodes.

    python make_images.py ../processors/images

`expected.json` holds, for each file, `ImageOps.exif_transpose(image).convert("RGB")`: width, height and the bytes in base64.
Needs Pillow (the committed files were written by 13.0) and numpy.
"""
import base64, json, struct, sys
from pathlib import Path
import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

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
    for old in out.glob("*.*"): old.unlink() if old.suffix != ".heic" else None
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
    more(out)
    expected = {}
    for file in sorted(out.iterdir()):
        if file.suffix == ".heic": continue  # Pillow does not read it; written by pillow-heif from a gradient
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        expected[file.name] = dict(width=image.width, height=image.height, rgb=base64.b64encode(image.tobytes()).decode())
    (out / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")


def more(out: Path) -> None:
    """formats that libvips does not read, GIFs whose first frame is not the canvas, orientation in XMP alone"""
    rng = np.random.default_rng(11)
    random = lambda n: rng.integers(0, 256, n, dtype=np.uint8).tobytes()
    write = lambda name, data: (out / name).write_bytes(data)
    save = lambda image, name, **options: image.save(out / name, **options)
    stride = lambda bits: (W * bits + 31) // 32 * 4
    # BMP: every depth, both row orders, old headers, short palettes, bit masks, runs
    for bits in (1, 4, 8): write(f"{bits}-bit.bmp", bitmap(bits, random(stride(bits) * H), palette=random(4 << bits), down=bits == 4))
    write("os2.bmp", bitmap(8, random(stride(8) * H), palette=random(768), size=12))
    write("short-palette.bmp", bitmap(8, random(stride(8) * H), palette=random(400), colours=100))
    for bits in (16, 24, 32): write(f"{bits}-bit.bmp", bitmap(bits, random(stride(bits) * H), size=124 if bits == 24 else 40, down=bits == 32))
    write("565.bmp", bitmap(16, random(stride(16) * H), masks=(0xF800, 0x7E0, 0x1F)))
    write("rgba-masks.bmp", bitmap(32, random(stride(32) * H), masks=(0xFF, 0xFF00, 0xFF0000, 0xFF000000), size=108))
    write("xbgr-masks.bmp", bitmap(32, random(stride(32) * H), masks=(0xFF000000, 0xFF0000, 0xFF00, 0), size=56))
    rows = [bytes([5, y, 0, 4, 1, 2, 3, 4, 0, 3, 9, 8, 7, 0, 11, 200 + y, 0, 0]) for y in range(H - 2)]
    write("runs-8.bmp", bitmap(8, b"\x05\x07\0\2\x03\x01\x04\x09\0\0" + b"".join(rows) + b"\0\1", palette=random(1024), compression=1, lines=H))
    rows = [bytes([9, 16 * (y % 16) + 3, 0, 5, 0x12, 0x34, 0x50, 0, 9, 0x7A, 0, 0]) for y in range(H)]
    write("runs-4.bmp", bitmap(4, b"".join(rows) + b"\0\1", palette=random(64), compression=2))
    # ICO: PNG and bitmaps with masks; the largest is opened
    for image, name in ((rgba, "rgba"), (palette, "palette"), (grey, "grey")):
        image.resize((40, 40)).save(out / f"{name}-bitmap.ico", bitmap_format="bmp", sizes=[(40, 40), (16, 16)])
    rgba.resize((40, 40)).save(out / "png.ico", sizes=[(16, 16), (40, 40)])
    # TGA: palettes, grey, 16 to 32 bits, runs, all four origins
    for flags, depth in ((0, 24), (0x10, 16), (0x20, 32), (0x30, 24)): write(f"{depth}-bit-{flags >> 4}.tga", targa(2, depth, random(W * H * depth // 8), flags))
    write("palette.tga", targa(1, 8, random(W * H), colours=random(300), first=20, bits=24))
    save(rgb, "runs.tga", compression="tga_rle"); save(grey, "grey-runs.tga", compression="tga_rle", orientation=1)
    save(Image.merge("LA", (grey, alpha)), "grey-alpha.tga"); save(palette, "palette-runs.tga", compression="tga_rle")
    # PBM, PGM, PPM, PFM: text and binary, values of any range
    save(rgb, "rgb.ppm"); save(Image.fromarray(noise[..., 0] > 128), "one-bit.pbm"); save(Image.fromarray(deep), "grey-16.pgm")
    save(Image.fromarray((rng.random((H, W)) * 400 - 50).astype(np.float32)), "float.pfm")
    for kind, channels, largest in ((2, 1, 2), (3, 3, 100), (5, 1, 6), (6, 3, 1023)):
        values = rng.integers(0, largest + 1, W * H * channels)
        text = b" ".join(b"%d" % v + (b" # note 5\n" if i % 50 == 9 else b"") for i, v in enumerate(values))
        data = text if kind < 4 else values.astype(">u2" if largest > 255 else np.uint8).tobytes()
        write(f"p{kind}-{largest}.ppm", b"P%d\n# note\n%d %d\n%d\n" % (kind, W, H, largest) + data)
    write("p1.pbm", b"P1 %d %d\n" % (W, H) + b"".join(b"%d" % v + (b" " if i % 3 else b"") for i, v in enumerate(rng.integers(0, 2, W * H))))
    # JPEG 2000: lossless, lossy, bare codestream, grey with 8 and 16 bits
    save(rgb, "rgb.jp2"); save(rgb, "lossy.jp2", irreversible=True, quality_mode="rates", quality_layers=[8]); save(rgb, "rgb.j2k")
    save(rgba, "rgba.jp2"); save(rgba, "lossy-alpha.jp2", irreversible=True, quality_mode="rates", quality_layers=[6]); save(Image.merge("LA", (grey, alpha)), "grey-alpha.jp2")
    save(grey, "grey.jp2"); save(Image.fromarray(deep), "grey-16.jp2")
    # GIF: small first frames, beyond the canvas, transparent, disposed of, interlaced, without a palette
    frames = [frame(rng, 2, 3, 6, 5), frame(rng, 0, 0, 12, 10, transparent=3)]
    write("small-frame.gif", animation(12, 10, random(24), frames)); write("small-transparent.gif", animation(12, 10, random(24), frames[:0] + [frame(rng, 2, 3, 6, 5, transparent=5)] + frames[1:]))
    write("beyond-canvas.gif", animation(6, 4, random(24), [frame(rng, 3, 2, 9, 7, disposal=2)], background=1))
    write("local-palette.gif", animation(12, 10, random(24), [frame(rng, 1, 1, 9, 7, colours=random(12), interlaced=True, transparent=1, disposal=3)]))
    write("no-palette.gif", animation(12, 10, b"", [frame(rng, 1, 2, 9, 7)]))
    # orientation in XMP alone, as an attribute and as an element; Exif takes precedence
    save(rgb, "xmp-6.jpg", xmp=xmp(6), quality=90); save(rgb, "xmp-3.webp", xmp=xmp(3, True), lossless=True); save(rgb, "xmp-5.tiff", tiffinfo={700: xmp(5)})
    save(rgb, "xmp-6-exif-1.jpg", xmp=xmp(6), exif=oriented(1), quality=90); save(rgb, "xmp-6-tag-1.tiff", tiffinfo={700: xmp(6), 274: 1})
    text = PngImagePlugin.PngInfo(); text.add_itxt("XML:com.adobe.xmp", xmp(8).decode()); save(rgb, "xmp-8.png", pnginfo=text)
    save(cmyk, "xmp-7-cmyk.jpg", xmp=xmp(7), quality=95)


def bitmap(bits, data, palette=b"", masks=(), size=40, compression=0, colours=0, down=False, lines=H):
    packed = struct.pack(f"<{len(masks)}I", *masks)
    if size == 12: head = struct.pack("<IHHHH", 12, W, lines, 1, bits)
    else:
        head = struct.pack("<IiiHHIIiiII", size, W, -lines if down else lines, 1, bits, 3 if masks else compression, len(data), 0, 0, colours, 0)
        if size > 40: head, packed = head + (packed + bytes(84))[: size - 40], b""
    body = head + packed + palette
    return b"BM" + struct.pack("<IHHI", 14 + len(body) + len(data), 0, 0, 14 + len(body)) + body + data


def targa(kind, depth, data, flags=0, colours=b"", first=0, bits=0):
    count = len(colours) * 8 // bits if bits else 0
    return struct.pack("<BBBHHBHHHHBB", 0, 1 if colours else 0, kind, first, count, bits, 0, 0, W, H, depth, flags) + colours + data


def frame(rng, left, top, width, height, transparent=None, disposal=0, colours=b"", interlaced=False):
    """a frame of random indices from 0 to 7 (or of its own palette), as codes of four bits with a clear code before the table grows"""
    largest = len(colours) // 3 or 8
    codes = []
    for i, index in enumerate(rng.integers(0, largest, width * height)): codes += [8] * (i % 6 == 0) + [int(index)]
    value = sum(code << 4 * i for i, code in enumerate(codes + [9]))
    packed = value.to_bytes((len(codes) + 2) // 2, "little")
    control = b"!\xf9\x04" + bytes([disposal << 2 | (transparent is not None), 5, 0, transparent or 0, 0])
    flags = (0x80 | (largest.bit_length() - 2) if colours else 0) | (0x40 if interlaced else 0)
    blocks = b"".join(bytes([len(packed[i : i + 255])]) + packed[i : i + 255] for i in range(0, len(packed), 255))
    return control + b"," + struct.pack("<4HB", left, top, width, height, flags) + colours + b"\x03" + blocks + b"\0"


def animation(width, height, colours, frames, background=0):
    flags = 0x80 | 2 if colours else 2
    return b"GIF89a" + struct.pack("<HHBBB", width, height, flags, background, 0) + colours + b"".join(frames) + b";"


def xmp(orientation, is_element=False):
    start = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
    inner = b"><tiff:Orientation>%d</tiff:Orientation></rdf:Description>" if is_element else b' tiff:Orientation="%d"/>'
    return start + inner % orientation + b"</rdf:RDF></x:xmpmeta>"


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
