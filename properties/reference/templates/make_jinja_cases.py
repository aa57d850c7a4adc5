"""Renders the templates of properties/processors/text/jinja-cases.json with Transformers' Jinja environment.

    python properties/reference/templates/make_jinja_cases.py

The file is a list of [template, rendered text, or null for an error]; new templates are added to it by hand. Made with transformers
5.24.0 and jinja2 3.1.6.
"""
import json
from pathlib import Path
from transformers.utils.chat_template_utils import _compile_jinja_template

PATH = Path(__file__).resolve().parents[2] / "processors/text/jinja-cases.json"


def render(template):
    try:
        return _compile_jinja_template(template).render(messages=[dict(role="user")], tools=None, documents=None)
    except Exception:
        return None


if __name__ == "__main__":
    rows = [[template, render(template)] for template, _ in json.loads(PATH.read_text())]
    PATH.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
