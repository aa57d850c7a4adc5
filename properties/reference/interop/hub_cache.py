"""Checks that Python's huggingface_hub and this project share one cache: each finds the other's downloads without a network.

python properties/reference/interop/hub_cache.py        (huggingface_hub 2.4; node on the path; needs no network)

Starts a small hub on loopback. `internvl download` fills a cache that Python reads offline; Python fills another cache that
`internvl download --offline` reads. Prints the results; exits with 1 if a file differs.
"""
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[3]
REPO, COMMIT = "Org/some-model", "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "README.md": b"# a model",
    "config.json": b'{"model_type": "internvl"}',
    "tokenizer.json": b"{}",
    "model.safetensors": bytes(range(256)) * 100,
}
NEEDED = [name for name in FILES if name != "README.md"]


def is_large(name):
    return name.endswith(".safetensors")


def git_hash(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def etag(name):
    return hashlib.sha256(FILES[name]).hexdigest() if is_large(name) else git_hash(FILES[name])


def entry(name):
    size = len(FILES[name])
    lfs = {"lfs": {"oid": etag(name), "size": size, "pointerSize": 134}} if is_large(name) else {}
    return {"type": "file", "path": name, "size": size, "oid": git_hash(FILES[name]), **lfs}


class Hub(BaseHTTPRequestHandler):
    """The three endpoints that both sides use."""

    def answer(self, body, headers=(), kind="application/json"):
        self.send_response(200)
        for key, value in [("content-type", kind), ("content-length", str(len(body))), *headers]:
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith(f"/api/models/{REPO}/tree/"):
            return self.answer(json.dumps([entry(name) for name in FILES]).encode())
        if path.startswith(f"/api/models/{REPO}"):
            siblings = [{"rfilename": name} for name in FILES]
            return self.answer(json.dumps({"_id": "1", "id": REPO, "sha": COMMIT, "siblings": siblings}).encode())
        name = path.rsplit("/", 1)[-1]
        if name not in FILES:
            return self.send_error(404)  # other endpoints of the hub
        linked = [("x-linked-etag", f'"{etag(name)}"'), ("x-linked-size", str(len(FILES[name])))] if is_large(name) else []
        return self.answer(FILES[name], [("etag", f'"{etag(name)}"'), ("x-repo-commit", COMMIT), *linked], "application/octet-stream")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


PYTHON = "from huggingface_hub import snapshot_download; import sys; print(snapshot_download(sys.argv[1], local_files_only=sys.argv[2] == 'offline'))"


def run(command, env):
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(done.stderr)
    return Path(done.stdout.strip())


def check(name, folder, names, cache):
    wrong = [file for file in names if (folder / file).read_bytes() != FILES[file]]
    expected = cache / f"models--{REPO.replace('/', '--')}" / "snapshots" / COMMIT
    print(f"{name}: {len(names)} files, {'equal' if not wrong else wrong}")
    if wrong or folder.resolve() != expected.resolve():
        sys.exit(1)


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    online = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_x"}
    internvl, python = ["node", "generation/bin.js", "download", REPO], [sys.executable, "-c", PYTHON, REPO]
    with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
        run(internvl, {**online, "HF_HUB_CACHE": ours})
        run([*python, "online"], {**online, "HF_HUB_CACHE": theirs})
        server.shutdown()
        offline = {"HF_HUB_OFFLINE": "1"}
        check("Python reads this project's cache", run([*python, "offline"], {**offline, "HF_HUB_CACHE": ours}), NEEDED, Path(ours))
        check("this project reads Python's cache", run(internvl, {**offline, "HF_HUB_CACHE": theirs}), NEEDED, Path(theirs))


main()
