"""Runs a notebook in Deno's Jupyter kernel and prints the outputs of its cells as JSON; a cell that fails ends with its error.

    python execute.py NOTEBOOK        # with jupyter_client and nbformat installed, and Deno's kernel: deno jupyter --install

Deno's kernel may send a cell's last output after the message that it is idle, where nbclient stops to read. Here outputs are read until none
comes for a second.
"""
import json, sys
from pathlib import Path
from queue import Empty
import nbformat
from jupyter_client.manager import start_new_kernel
from nbformat.v4 import output_from_msg

path = Path(sys.argv[1]).resolve()
manager, client = start_new_kernel(kernel_name="deno", cwd=str(path.parent))


def run(source):
    request = client.execute(source)
    while (reply := client.get_shell_msg(timeout=120))["parent_header"].get("msg_id") != request:
        pass
    outputs = []
    try:
        while True:
            message = client.get_iopub_msg(timeout=1)
            if message["parent_header"].get("msg_id") == request and message["msg_type"] in ("stream", "display_data", "execute_result", "error"):
                outputs.append(output_from_msg(message))
    except Empty:
        pass
    if reply["content"]["status"] != "ok":
        sys.exit(f"{source}\n{outputs}")
    return outputs


try:
    cells = nbformat.read(path, as_version=4).cells
    print(json.dumps([run(cell.source) for cell in cells if cell.cell_type == "code"]))
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
