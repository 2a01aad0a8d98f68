"""lm-evaluation-harness: log-likelihoods and generation over a server of the demo, beside transformers' own.

Takes the server's URL, the demo's GGUF file and a text, from which it makes three tasks: multiple choice, perplexity,
and a continuation by greedy decoding.
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import lm_eval
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

url, gguf, text = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]).read_text("utf-8")
CHOICES, DOCUMENTS = 4, 24
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
num_fewshot: 0
metadata: {{version: 1}}
"""
KINDS = {
    "endings": """
output_type: multiple_choice
doc_to_text: "{{beginning}}"
doc_to_choice: endings
doc_to_target: right
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "perplexity": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{beginning}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
    "continuation": """
output_type: generate_until
doc_to_text: "{{beginning}}"
doc_to_target: "{{endings[right]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 16, do_sample: false}
metric_list: [{metric: exact_match}]
""",
}


def documents() -> list[dict[str, Any]]:
    """Paragraphs cut before their last ten words, each with the last words of three others to choose from."""
    paragraphs = [p.split(" ") for p in re.split(r"\n\n+", text) if 30 <= len(p.split(" ")) <= 90][:DOCUMENTS]
    endings = [" " + " ".join(words[-10:]) for words in paragraphs]
    return [
        {
            "beginning": " ".join(words[:-10]),
            "endings": [endings[(number + other) % len(endings)] for other in range(CHOICES)],
            "right": 0,
        }
        for number, words in enumerate(paragraphs)
    ]


def evaluate(model: str, arguments: dict[str, Any], tasks: list[str], manager: TaskManager) -> dict[str, Any]:
    found = lm_eval.simple_evaluate(
        model=model,
        model_args=arguments,
        device="cpu",
        tasks=tasks,
        task_manager=manager,
        bootstrap_iters=100,
        log_samples=True,
    )
    assert found is not None
    return found


with tempfile.TemporaryDirectory() as folder:
    data = Path(folder, "documents.jsonl")
    data.write_text("\n".join(map(json.dumps, documents())), "utf-8")
    for name, kind in KINDS.items():
        Path(folder, f"{name}.yaml").write_text(TASK.format(name=name, data=data) + kind, "utf-8")
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    manager = TaskManager(include_path=folder)
    name = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
    completions = {"model": name, "base_url": f"{url}/v1/completions", "num_concurrent": 4, "max_retries": 1}
    completions |= {"tokenizer": folder, "tokenizer_backend": "huggingface", "add_bos_token": True}
    ours = evaluate("local-completions", completions, [*KINDS], manager)
    reference = {"pretrained": str(gguf.parent), "gguf_file": gguf.name, "dtype": "float32", "add_bos_token": True}
    theirs = evaluate("hf", reference, [*KINDS], manager)
    for task in KINDS:
        for metric, value in ours["results"][task].items():
            if "stderr" in metric or not isinstance(value, float):
                continue
            expected = theirs["results"][task][metric]
            error = theirs["results"][task].get(metric.replace(",", "_stderr,"), 0.0)
            allowed = error if isinstance(error, float) and error > 0 else 0.01 * abs(expected)
            print(f"{task} {metric}: {value:.4f}, transformers {expected:.4f} +- {allowed:.4f}")
            assert abs(value - expected) <= allowed + 1e-9
    same = [
        (a["resps"], b["resps"])
        for a, b in zip(ours["samples"]["continuation"], theirs["samples"]["continuation"], strict=True)
    ]
    equal = sum(a == b for a, b in same)
    print(f"continuations equal: {equal} of {len(same)} (weights in 4 bits: near ties fall otherwise)")
    assert equal >= len(same) // 2, same
    remote = {key: value for key, value in completions.items() if key not in ("tokenizer", "add_bos_token")}
    evaluate("local-completions", {**remote, "tokenizer_backend": "remote"}, ["endings"], manager)
    print("tokenizer of the server")
