"""Runs a notebook in Deno's Jupyter kernel and prints the outputs of its cells as JSON; a cell that fails ends with its error.

    python execute.py NOTEBOOK        # with nbclient installed, and Deno's kernel: deno jupyter --install
"""
import json, sys
from pathlib import Path
import nbformat
from nbclient import NotebookClient

path = Path(sys.argv[1]).resolve()
notebook = nbformat.read(path, as_version=4)
NotebookClient(notebook, kernel_name="deno", timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
print(json.dumps([cell.outputs for cell in notebook.cells if cell.cell_type == "code"]))
