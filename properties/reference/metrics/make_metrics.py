"""Writes metrics.json: scores of answers by the published evaluation code.

Needs scipy, and clones of three repositories in the folder that is the argument: VQA (GT-Vision-Lab), lmms-eval (EvolvingLMMs-Lab) and
VLMEvalKit (open-compass).

    python3 properties/reference/metrics/make_metrics.py path/to/clones
"""
import ast
import copy
import json
import re
import string
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import scipy
from scipy import stats

clones = Path(sys.argv[1])


def source(repository, path):
    command = ["git", "-C", str(clones / repository), "show", f"HEAD:{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def functions(text, names, **scope):
    """Runs the named top-level functions of a file, without its imports."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            node.decorator_list = []
            exec(ast.unparse(node), scope)
    return scope


# the official evaluation of VQA, written for Python 2
official = source("VQA", "PythonEvaluationTools/vqaEvaluation/vqaEval.py").expandtabs(4)
official = re.sub(r"^(\s*)print .*$", r"\1pass", official, flags=re.M)
vqa_scope = {}
exec(official, vqa_scope)


class Questions:
    def __init__(self, qa):
        self.qa = qa

    def getQuesIds(self):
        return list(self.qa)


def vqa_accuracy(answer, references):
    people = [{"answer": text, "answer_id": i} for i, text in enumerate(references)]
    question = {0: {"answers": people, "question_type": "all", "answer_type": "all"}}
    evaluation = vqa_scope["VQAEval"](Questions(question), Questions({0: {"answer": answer}}), n=12)
    evaluation.updateProgress = lambda progress: None
    evaluation.evaluate()
    return evaluation.evalQA[0] / 100


lmms = source("lmms-eval", "lmms_eval/api/metrics.py")
anls = functions(lmms, ["levenshtein_distance", "anls"])["anls"]
grounding = functions(source("lmms-eval", "lmms_eval/tasks/refcoco/utils_rec.py"), ["compute_iou"])["compute_iou"]
# InternVL's own evaluate_vqa.py passes the answer as the target, so that 95 is no match for 100; the paper divides by the reference
correct = functions(source("lmms-eval", "lmms_eval/tasks/chartqa/utils.py"), ["relaxed_correctness"])["relaxed_correctness"]
relaxed = lambda answer, references: max(correct(answer.strip(), reference) for reference in references)
matching = source("VLMEvalKit", "vlmeval/utils/matching_util.py")
pattern = re.search(r"^_VERBOSE_ANSWER_RE.*$", matching, re.M).group(0)
scope = {"re": re, "os": __import__("os"), "string": string, "cp": copy, "Counter": Counter}
exec(pattern, scope)
can_infer = functions(matching, ["can_infer_option", "can_infer_text", "can_infer"], **scope)["can_infer"]

ten = lambda *groups: [text for text, count in groups for _ in range(count)]
vqa_cases = [
    ("yes", ten(("yes", 10))),
    ("Yes", ten(("yes", 10))),
    ("Yes.", ten(("yes", 7), ("no", 3))),
    ("no", ten(("yes", 7), ("no", 3))),
    ("no", ten(("yes", 8), ("no", 2))),
    ("two", ten(("2", 5), ("two", 2), ("3", 3))),
    ("the dog", ten(("dog", 2), ("a dog", 1), ("dogs", 7))),
    ("dont walk", ten(("don't walk", 4), ("walk", 6))),
    ("1,000", ten(("1000", 5), ("1,000", 2), ("100", 3))),
    ("10.5", ten(("10.5", 4), ("105", 6))),
    ("5.", ten(("5", 4), ("6", 6))),
    ("black/white", ten(("black and white", 3), ("black white", 4), ("white", 3))),
    ("it's red - and blue", ten(("red and blue", 3), ("it's red and blue", 7))),
    ("new\nyork\t", ten(("new york", 3), ("NYC", 7))),
    ("none", ten(("0", 4), ("1", 6))),
    ("", ten(("", 1), ("a", 9))),
    ("what?", ten(("what", 3), ("what?", 1), ("where", 6))),
    ("." * 40, ten(("", 5), ("." * 8, 5))),
]
anls_cases = [
    ("2010", ["2010"]), ("2011", ["2010"]), ("  The  Cat ", ["the cat"]), ("cat", ["dog"]), ("", [""]), ("", ["a"]),
    ("Straße", ["strasse"]), ("university of california", ["University of California, San Diego", "UCSD"]),
    ("abcd", ["abxx"]), ("abcd", ["axxx", "abcx"]), ("naïve 😀", ["naive 😀"]),
]
relaxed_cases = [
    ("10", ["10.4"]), ("10", ["10.6"]), ("50%", ["0.5"]), ("50%", ["50"]), ("Yes", ["yes"]), ("0", ["0"]), ("0.0", ["0"]), ("1e3", ["1,000"]),
    ("1_000", ["1000"]), (" 14 ", ["14"]), ("-5", ["-5.2"]), (".5", ["0.5"]), ("5.", ["5"]), ("$5", ["5"]), ("blue", ["red", "Blue"]),
    ("3", ["four"]), ("12%%", ["12%"]), ("105", ["100"]), ("95", ["100"]), ("94.9", ["100"]),
]
pets = {"A": "a cat", "B": "a dog", "C": "a bird", "D": "none of them"}
choice_cases = [
    ("B", pets), ("B.", pets), ("(B)", pets), ("The answer is B", pets), ("A dog", pets), ("a dog", pets), ("It is a bird, surely.", pets),
    ("A or B", pets), ("The correct answer is **C**. Here is why: A is a cat", pets), ("b", pets), ("", pets), ("E", pets),
    ("B because the animal barks and runs after the ball", pets), ("Because it barks, the option is B", pets), ("D: none of them", pets),
    ("I see a cat and a dog", pets), ("answer is c", pets), ("Option A", pets), ("{C}", pets), ("C#", pets),
]
box_cases = [
    ([0, 0, 10, 10], [0, 0, 10, 10]), ([0, 0, 10, 10], [5, 0, 15, 10]), ([0, 0, 10, 10], [10, 10, 20, 20]), ([0, 0, 100, 50], [0, 0, 50, 50]),
    ([10, 20, 500, 900], [30, 10, 480, 850.5]),
]

rng = np.random.default_rng(0)
binary = [[int(x) for x in rng.random(60) < p] for p in (0.6, 0.75)]
graded = [[round(float(x), 2) for x in rng.random(12)] for _ in range(2)]
long = [[round(float(x), 2) for x in rng.random(80)], [round(float(x), 2) for x in rng.random(80) * 0.8 + 0.3]]


def permutation(a, b):
    mean = lambda x, y, axis: np.mean(x - y, axis=axis)
    return stats.permutation_test((a, b), mean, permutation_type="samples", n_resamples=100_000, vectorized=True, rng=np.random.default_rng(0)).pvalue


def mcnemar(a, b):
    better, worse = sum(y > x for x, y in zip(a, b)), sum(y < x for x, y in zip(a, b))
    return stats.binomtest(better, better + worse).pvalue


def bootstrap(values):
    interval = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=100_000, rng=np.random.default_rng(0)).confidence_interval
    return [float(interval.low), float(interval.high)]


result = {
    "versions": {"scipy": scipy.__version__, "numpy": np.__version__},
    "vqa": [{"answer": a, "references": r, "score": vqa_accuracy(a, r)} for a, r in vqa_cases],
    "anls": [{"answer": a, "references": r, "score": float(anls(r, [a])["anls"])} for a, r in anls_cases],
    "relaxed": [{"answer": a, "references": r, "score": float(relaxed(a, r))} for a, r in relaxed_cases],
    "choice": [{"answer": a, "choices": c, "letter": can_infer(a, dict(c)) or None} for a, c in choice_cases],
    "iou": [{"a": a, "b": b, "iou": float(grounding(a, b))} for a, b in box_cases],
    "paired": [
        {"a": binary[0], "b": binary[1], "name": "mcnemar", "p": float(mcnemar(*binary))},
        {"a": graded[0], "b": graded[1], "name": "sign-flip", "p": float(permutation(*map(np.array, graded)))},
        {"a": long[0], "b": long[1], "name": "sign-flip", "p": float(permutation(*map(np.array, long)))},
    ],
    "bootstrap": [{"scores": s, "interval": bootstrap(s)} for s in (binary[0], long[0])],
}
Path(__file__).with_name("metrics.json").write_text(json.dumps(result, ensure_ascii=False) + "\n")
