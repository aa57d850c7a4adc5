"""Videos for properties/processors/video-file.test.ts, with the frames that Transformers' decoder returns.

    pip install av torchcodec numpy
    python properties/reference/make_videos.py           # all videos
    python properties/reference/make_videos.py --more    # only those of `more`

The frame of index i shows i in binary, its lowest bit top left, as eight blocks (4 x 2) of black and white; the videos
`bt601`, `bt709` and `full` show coloured blocks instead. `videos.json` holds, as torchcodec decodes it, each video's number
of frames, frames a second, size, each frame's mean colour in each block, and the SHA-256 of all frames' RGB bytes. torchcodec in its exact mode is the decoder
that Transformers 5.24 uses by default.
"""

import json
import sys
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import av
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
VIDEOS = ROOT / "properties/processors/videos"
COLOURS = [(220, 40, 40), (40, 200, 60), (50, 60, 210), (230, 220, 50), (40, 200, 210), (200, 60, 200), (128, 128, 128), (250, 250, 250)]


def blocks(colours, width, height):
    image = np.zeros((height, width, 3), np.uint8)
    for k, colour in enumerate(colours):
        rows = slice(k // 4 * height // 2, (k // 4 + 1) * height // 2)
        image[rows, k % 4 * width // 4 : (k % 4 + 1) * width // 4] = colour
    return image


def bits(index, width, height):
    return blocks([(255,) * 3 if index >> k & 1 else (0,) * 3 for k in range(8)], width, height)


def video(name, codec, frames, *, rate=30, pts=None, pixels="yuv420p", container=None, options=None, format=None, flags=0, **context):
    """Encodes frames; `pts` are times in thousandths of a second where the rate varies."""
    with av.open(str(VIDEOS / name), "w", format=format, options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        stream.codec_context.flags = int(stream.codec_context.flags) | flags
        if pts:
            stream.codec_context.time_base = Fraction(1, 1000)
        for key, value in context.items():
            setattr(stream.codec_context, key, value)
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format=pixels, dst_colorspace=context.get("colorspace"), dst_color_range=context.get("color_range"))
            if pts:
                frame.pts, frame.time_base = pts[i], Fraction(1, 1000)
            else:
                frame.pts, frame.time_base = i, 1 / Fraction(rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def copied(source, name, container=None, hide=False):
    """The packets of a video in another container; before every key frame, a hidden copy (VP8) of the previous visible frame."""
    with av.open(str(VIDEOS / source)) as src, av.open(str(VIDEOS / name), "w", options=container or {}) as out:
        stream = out.add_stream_from_template(src.streams.video[0])
        last = None
        for packet in src.demux(video=0):
            if packet.dts is None:
                continue
            if hide and packet.is_keyframe and last:
                data, time, base = last
                hidden = av.Packet(bytes([data[0] & ~0x10]) + data[1:])
                hidden.pts, hidden.dts, hidden.time_base, hidden.stream = time + 1, time + 1, base, stream
                out.mux(hidden)
            last = bytes(packet), packet.pts, packet.time_base
            packet.stream = stream
            out.mux(packet)


def more():
    """Videos of other pixel formats, scans and containers, added later: written without changing the others."""
    small = [pattern(i, 64, 48) for i in range(6)]
    interlaced = {"flags": 1 << 29 | 1 << 18}  # interlaced motion estimation and DCT
    x264 = {"preset": "medium", "crf": "30", "x264-params": "log-level=none", "g": "6", "bf": "2"}
    x265 = {"x265-params": "log-level=none"}
    video("ten-bit.mp4", "libx265", small, pixels="yuv420p10le", options=x265)
    hdr = {"x265-params": "log-level=none:colormatrix=bt2020nc:colorprim=bt2020:transfer=smpte2084"}
    video("hdr.mp4", "libx265", small, pixels="yuv420p10le", options=hdr, colorspace=9)
    video("ten-bit-422.mp4", "libx264", small, pixels="yuv422p10le", options=x264)
    video("odd-width.mp4", "libx264", [pattern(i, 66, 50) for i in range(3)], options=x264)
    video("interlaced.mp4", "libx264", small, options=x264, **interlaced)
    video("interlaced.m2ts", "libx264", small, options=x264, **interlaced)
    video("interlaced.mpg", "mpeg2video", small, options={"g": "6", "bf": "2"}, **interlaced)
    video("interlaced.mov", "prores_ks", small[:2], pixels="yuv422p10le", **interlaced)
    video("plain.flv", "flv", small[:3])
    video("plain.wmv", "wmv2", small[:3])
    video("plain.ogv", "libvpx", small[:3], format="ogg")
    video("plain.apng", "apng", small[:3], pixels="rgb24")


def pattern(i, width, height):
    """A moving gradient with a red rectangle."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([(x * 4 + i * 9) % 256, (y * 5 + i * 3) % 256, ((x + y) * 3 + i * 20) % 256], -1).astype(np.uint8)
    image[5 + i : 15 + i, 10 + i * 2 : 30 + i * 2] = [250, 20, 30]
    return image


def sound(name):
    with av.open(str(VIDEOS / name), "w") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        for i in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, i * 1024
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def rotated(source, name):
    """The video with the matrix of a camera that was held upright: a quarter turn. Only the container says so."""
    data = bytearray((VIDEOS / source).read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    words = [0, 0x10000, 0, -0x10000 & 0xFFFFFFFF, 0, 0, 0, 0, 0x40000000]
    data[at : at + 36] = b"".join(word.to_bytes(4, "big") for word in words)
    (VIDEOS / name).write_bytes(data)


def make():
    VIDEOS.mkdir(exist_ok=True)
    small = [bits(i, 64, 48) for i in range(60)]
    few = small[:12]
    x264 = {"preset": "medium", "crf": "30", "x264-params": "log-level=none"}
    video("b-frames.mp4", "libx264", small, options=x264 | {"g": "12", "bf": "3"}, rate=Fraction(30000, 1001), container={"movflags": "faststart"})
    video("open-gop.mkv", "libx264", small[:40], options=x264 | {"x264-params": "open-gop=1:keyint=10:bframes=3:scenecut=0:log-level=none"})
    video("varying.mp4", "libx264", few, options=x264 | {"g": "5", "bf": "2"}, pts=[0, 33, 40, 200, 203, 500, 900, 901, 1000, 1500, 1533, 2000])
    video("odd.webm", "libvpx-vp9", [bits(i, 67, 45) for i in range(10)], options={"crf": "50", "b": "0"})
    video("visible.webm", "libvpx", small[:20], options={"crf": "40", "b": "20k", "g": "8"})
    copied("visible.webm", "hidden.webm", hide=True)
    (VIDEOS / "visible.webm").unlink()
    video("plain.mov", "mpeg4", few, options={"g": "6", "bf": "2", "q": "10"})
    video("plain.avi", "mpeg4", few, options={"g": "6", "q": "10"})
    video("plain.m2ts", "libx264", few, options=x264 | {"g": "6", "bf": "2"})
    video("plain.gif", "gif", few, rate=10, pixels="rgb8")
    video("one.mp4", "libx264", small[5:6], options=x264)
    colours = [blocks(np.roll(COLOURS, i, 0), 64, 48) for i in range(2)]
    video("bt601.mp4", "libx264", colours, options=x264)
    video("bt709.mp4", "libx264", colours, options=x264, colorspace=1)
    video("full.mp4", "libx264", colours, options=x264, colorspace=5, color_range=2)
    copied("b-frames.mp4", "no-index.mp4", container={"movflags": "frag_keyframe+empty_moov"})
    rotated("varying.mp4", "rotated.mp4")
    sound("sound.m4a")
    demo = [np.asarray(Image.open(ROOT / f"generation/demo/video/{i}.png").convert("RGB")) for i in (1, 2, 3)]
    video("demo.mp4", "libx264", [np.pad(f, ((0, 1), (0, 1), (0, 0)), "edge") for f in demo], options=x264 | {"crf": "18"}, rate=1)


def means(frame):
    h, w, _ = frame.shape
    return [[round(float(m), 1) for m in frame[k // 4 * h // 2 : (k // 4 + 1) * h // 2, k % 4 * w // 4 : (k % 4 + 1) * w // 4].mean((0, 1))] for k in range(8)]


def expected(path):
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), seek_mode="exact", dimension_order="NHWC")
    about = decoder.metadata
    frames = [frame.numpy() for frame in decoder.get_frames_at(list(range(about.num_frames))).data]
    short = len(frames) < 15
    return {
        "totalNumFrames": about.num_frames,
        "fps": about.average_fps,
        "width": frames[0].shape[1],
        "height": frames[0].shape[0],
        "blocks": [means(f) for f in frames] if short else None,
        "sha256": sha256(b"".join(f.tobytes() for f in frames)).hexdigest() if short else None,
    }


if __name__ == "__main__":
    if "--more" not in sys.argv:
        make()
    more()
    cases = {}
    for path in sorted(VIDEOS.iterdir()):
        if path.suffix not in (".json", ".m4a"):
            try:
                cases[path.name] = expected(path)
            except Exception as error:
                print(path.name, str(error)[:100])
    (VIDEOS / "videos.json").write_text(json.dumps(cases, separators=(",", ":")))
    print(sum(p.stat().st_size for p in VIDEOS.iterdir()), "bytes")
