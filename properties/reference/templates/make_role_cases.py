"""Renders conversations with empty turns and with roles that only a template knows, and encodes them, with Transformers.

    python properties/reference/templates/make_role_cases.py

Writes properties/processors/text/role-cases.json: the templates, and rows of [name of the template, messages, prompt, ids or null]. The prompt is
null where the template refuses the messages. Made with transformers 5.24.0 and jinja2 3.1.6.
"""
import json
from pathlib import Path
from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parents[3]
tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/demo")

templates = {
    "demo": (ROOT / "models/demo/chat_template.jinja").read_text(),
    # the roles of GLM-4's template
    "glm": "[gMASK]<sop>{% for item in messages %}{% if item['role'] == 'function' or item['role'] == 'observation' %}<|im_start|>{{ item['role'] }}"
    "\n{{ item['content'] }}{% elif item['role'] != 'system' %}<|im_start|>{{ item['role'] }}{{ item['metadata'] or '' }}\n{{ item['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}",
    # alternating roles, as Llama 2's template has them
    "strict": "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}"
    "{% endif %}{{ m['role'] ~ ': ' ~ m['content'] }}<|im_end|>{% endfor %}",
}

user = lambda content: {"role": "user", "content": content}
said = lambda role, content, **more: {"role": role, "content": content, **more}
conversations = [
    [user("")],
    [user(" \n ")],
    [user([])],
    [user([{"type": "text", "text": ""}])],
    [user(""), said("assistant", ""), user("")],
    [user("Hi"), said("tool", "42")],
    [user("Hi"), said("function", "f(1)"), said("observation", "one"), said("assistant", "done", metadata="x")],
    [said("developer", "Be brief."), user("Hi"), said("ipython", "1"), said("critic-2", "no")],
    [said("observation", "")],
    [user("Hi"), said("观察", "好")],
]


def row(name, messages):
    options = dict(chat_template=templates[name], add_generation_prompt=True)
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except Exception:
        return [name, messages, None, None]
    return [name, messages, text, tokenizer(text, add_special_tokens=False)["input_ids"]]


if __name__ == "__main__":
    rows = [row(name, messages) for name in templates for messages in conversations]
    lines = ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    text = f'{{"templates": {json.dumps(templates)},\n"rows": [\n{lines}\n]}}\n'
    (ROOT / "properties/processors/text/role-cases.json").write_text(text)
