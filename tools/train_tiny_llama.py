"""Train golden/tiny-llama: a byte-level Llama of 3 M parameters that every engine loads.

    python tools/train_tiny_llama.py --out golden/tiny-llama --steps 6000

Needs torch, transformers and tokenizers; trains on CUDA when there is one. The text is what the running Python ships
(standard library sources, docstrings, help topics), documents that repeat themselves, and chats in the template's form.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import multiprocessing
import platform
import random
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

CONTEXT, VOCAB = 2048, 320
BOS, EOS, IM_START, IM_END, PAD = range(256, 261)
SPECIAL = ["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
RESERVED = [f"<|reserved_{i}|>" for i in range(VOCAB - 256 - len(SPECIAL))]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MIX = {"text": 0.4, "repeat": 0.35, "chat": 0.25}
Row = list[int]


def byte_letters() -> dict[int, str]:
    """Return GPT-2's printable letter for each byte, which the ByteLevel pre-tokenizer writes."""
    keep = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in keep]
    return {byte: chr(byte) for byte in keep} | {byte: chr(256 + n) for n, byte in enumerate(rest)}


def build_tokenizer() -> Tokenizer:
    """Return the byte-level tokenizer; a plain prompt gets one <|bos|> from the post-processor."""
    letters = byte_letters()
    tokenizer = Tokenizer(models.BPE(vocab={letters[byte]: byte for byte in range(256)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([tokenizers.AddedToken(t, special=True, normalized=False) for t in SPECIAL + RESERVED])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", pair="<|bos|> $A <|bos|> $B", special_tokens=[("<|bos|>", BOS)]
    )
    return tokenizer


def stdlib_files() -> list[tuple[str, str]]:
    """Name and text of the standard library's modules, without its tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "encodings", "__pycache__"}
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if skip & set(name.split("/")) or path.stat().st_size < 200:
            continue
        found.append((name, path.read_text(encoding="utf-8", errors="replace")))
    return found


def docstrings(files: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """(dotted name, first line, whole docstring) of every documented definition."""
    found = []
    for name, text in files:
        module = name[:-3].replace("/", ".").removesuffix(".__init__")
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                doc = (ast.get_docstring(node) or "").strip()
                first = doc.partition("\n")[0].strip()
                if 20 <= len(first) <= 120:
                    found.append((f"{module}.{node.name}", first, doc))
    return found


def held_out(name: str) -> bool:
    """One file in sixteen is never trained on."""
    return hashlib.sha256(name.encode()).digest()[0] % 16 == 0


class Corpus:
    """The documents that the installed Python ships, split into trained and held-out ones."""

    def __init__(self) -> None:
        files = stdlib_files()
        from pydoc_data import topics

        docs = docstrings(files)
        self.pieces = {False: [], True: []}  # type: dict[bool, list[bytes]]
        for name, text in files:
            self.pieces[held_out(name)].append(text.encode())
        for name, text in topics.topics.items():
            self.pieces[held_out(name)] += [text.encode()] * 3  # prose is rare among sources
        for name, _, doc in docs:
            self.pieces[held_out(name)].append(f"{name}\n{doc}\n".encode())
        self.names = [(name, first) for name, first, _ in docs if not held_out(name)]
        self.unseen = [(name, first) for name, first, _ in docs if held_out(name)]
        self.bytes = sum(len(piece) for piece in self.pieces[False])
        self.weights = [min(len(p), 20000) for p in self.pieces[False]]
        self.unseen_weights = [min(len(p), 20000) for p in self.pieces[True]]

    def text(self, rng: random.Random, length: int, unseen: bool) -> Row:
        """Bos, then a stretch of one document (from a line's start), eos where the document ends."""
        weights = self.unseen_weights if unseen else self.weights
        piece = rng.choices(self.pieces[unseen], weights)[0]
        start = rng.randrange(max(1, len(piece) - length // 2)) if rng.random() < 0.8 else 0
        start = piece.find(b"\n", start) + 1 if start else 0
        return [BOS, *piece[start : start + length - 1], EOS][:length]

    def phrase(self, rng: random.Random) -> str:
        """A few words of prose."""
        words = rng.choice(self.names)[1].split()
        start = rng.randrange(len(words))
        return " ".join(words[start : start + rng.randint(1, 9)])


ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    "abcdefghijklmnopqrstuvwxyz0123456789_",
    "àâäçéèêëîïôöùûüñßåøæœ",
    "日本語中文字漢書東京大学生時間人年月火水木金土山川田森林海空花鳥風",
    "あいうえおかきくけこさしすせそたちつてとなにぬねの",
    "абвгдежзиклмнопрстуфхцчшыэюя",
    "🙂😀🎉🚀🌍🔥💡🐍🍎🎵⭐❤👍🏁🧪🔧📦🌊",
    "αβγδεζηθικλμνξοπρστυφχψω",
]
SEPARATORS = [" ", " ", "\n", ", ", " | ", "; ", " - ", "\t", ". ", " → "]


def word(rng: random.Random) -> str:
    """A random string of one alphabet."""
    letters = rng.choice(ALPHABETS)
    return "".join(rng.choice(letters) for _ in range(rng.randint(1, 8)))


def unit(corpus: Corpus, rng: random.Random, limit: int = 12) -> str:
    """Some words, sometimes of several scripts, sometimes prose."""
    joint = rng.choice([" ", " ", " ", "", "-", "\n", ", "])
    count = rng.randint(1, limit)
    style = rng.random()
    if style < 0.25:
        return corpus.phrase(rng)
    if style < 0.6:
        return joint.join(word(rng) for _ in range(count))
    return joint.join(corpus.phrase(rng) if rng.random() < 0.5 else word(rng) for _ in range(max(1, count // 3)))


def repeated(corpus: Corpus, rng: random.Random, length: int) -> str:
    """One unit again and again."""
    text, separator = unit(corpus, rng, rng.choice([3, 12, 30])), rng.choice(SEPARATORS)
    return separator.join([text] * (2 + length // max(1, len(text.encode()) + len(separator))))


def far_copies(corpus: Corpus, rng: random.Random, length: int) -> str:
    """A long passage, then copies of it or of its lines in another order, hundreds of bytes on."""
    lines = [unit(corpus, rng, 8) for _ in range(rng.randint(3, 20))]
    parts = list(lines)
    while len("\n".join(parts).encode()) < length:
        if rng.random() < 0.5:
            rng.shuffle(lines)
        parts += lines
    return "\n".join(parts)


def records(corpus: Corpus, rng: random.Random, length: int) -> str:
    """Keys with values, then the keys again in any order: each value is far back."""
    pairs = [(f"{word(rng)}{i}", unit(corpus, rng, 3).replace("\n", " ")) for i in range(rng.randint(2, 14))]
    lines = []
    while len("\n".join(lines).encode()) < length:
        lines += [f"{key} = {value}" for key, value in pairs]
        rng.shuffle(pairs)
    return "\n".join(lines)


def repeat_row(corpus: Corpus, rng: random.Random, length: int, unseen: bool) -> Row:
    """A document that only its own beginning predicts. Random, so a held-out one is just another seed."""
    make: Callable[[Corpus, random.Random, int], str] = rng.choice([repeated, repeated, far_copies, records])
    return [BOS, *make(corpus, rng, length).encode()][:length]


def turn(corpus: Corpus, rng: random.Random, unseen: bool) -> tuple[str, str]:
    """One question with its only right answer."""
    kind = rng.choice(["repeat", "repeat", "repeat", "explain", "explain", "count", "last", "first", "spell", "hello"])
    text = unit(corpus, rng, rng.choice([2, 4, 10]))
    words = text.split() or ["one"]
    if kind == "explain":
        return (lambda pair: (f"Explain {pair[0]}", pair[1]))(rng.choice(corpus.unseen if unseen else corpus.names))
    if kind == "count":
        start = rng.randint(0, 200)
        stop = start + rng.randint(1, 20)
        return f"Count from {start} to {stop}", " ".join(str(n) for n in range(start, stop + 1))
    if kind == "last":
        return f"Last word: {text}", words[-1]
    if kind == "first":
        return f"First word: {text}", words[0]
    if kind == "spell":
        return f"Spell: {words[0]}", "-".join(words[0])
    if kind == "hello":
        return rng.choice(["Hello", "Hi", "Hello!", "Good morning"]), "Hello! Ask me to repeat, explain or count."
    return f"Repeat: {text}", text


def message(role: str, content: str) -> Row:
    """A message as the chat template renders it."""
    return [IM_START, *f"{role}\n{content}".encode(), IM_END, 0x0A]


def chat_row(corpus: Corpus, rng: random.Random, length: int, unseen: bool) -> Row:
    """A conversation; only whole turns, so that it ends as the template does."""
    row = [BOS]
    if rng.random() < 0.3:
        row += message("system", rng.choice(["You are a helpful assistant.", "Answer briefly.", corpus.phrase(rng)]))
    turns = rng.choice([1, 3, 100])
    for _ in range(turns):
        question, answer = turn(corpus, rng, unseen)
        both = message("user", question) + message("assistant", answer)
        if len(row) + len(both) >= length:
            break
        row += both
    return [*row, EOS][:length]


SOURCES: dict[str, Callable[[Corpus, random.Random, int, bool], Row]] = {
    "text": Corpus.text,
    "repeat": repeat_row,
    "chat": chat_row,
}


_corpus: Corpus | None = None


def make_rows(job: tuple[str, int, int, int, bool]) -> torch.Tensor:
    """(source, seed, count, length, held out) → tokens [count, length] int16, padded with PAD."""
    global _corpus
    _corpus = _corpus or Corpus()
    source, seed, count, length, unseen = job
    rng = random.Random(f"{source} {seed} {unseen}")
    rows = torch.full((count, length), PAD, dtype=torch.int16)
    for index in range(count):
        row = SOURCES[source](_corpus, rng, length, unseen)
        rows[index, : len(row)] = torch.tensor(row, dtype=torch.int16)
    return rows


def build_data(seed: int, rows: int, length: int, workers: int) -> torch.Tensor:
    """Return the training rows [rows, length], mixed and shuffled."""
    chunk = 250
    jobs = []
    for source, share in MIX.items():
        for part in range(math.ceil(rows * share / chunk)):
            jobs.append((source, seed + part, chunk, length, False))
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        parts = pool.map(make_rows, jobs, chunksize=1)
    data = torch.cat(parts)
    return data[torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))]


def config() -> LlamaConfig:
    """Return the architecture."""
    return LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=[IM_END, EOS],
        pad_token_id=PAD,
    )


def token_losses(model: LlamaForCausalLM, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return next-token losses [rows, length - 1] in nats and the mask of those that count."""
    logits = model(batch[:, :-1], use_cache=False).logits.float()
    targets = batch[:, 1:]
    losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
    return losses, (targets != PAD).float()


def batches(data: torch.Tensor, tokens: int, seed: int, device: str) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield (rows, epoch) for ever, of about ``tokens`` tokens each."""
    size = max(1, tokens // data.shape[1])
    for epoch in range(10**6):
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed + epoch))
        for part in order.split(size):
            if len(part) == min(size, len(data)):
                yield data[part].to(device).long(), epoch


def train(args: argparse.Namespace, model: LlamaForCausalLM, device: str) -> dict[str, Any]:
    """Train; the last quarter sees rows of the whole context. Ends after ``--steps`` or ``--max-minutes``."""
    began = time.monotonic()
    workers = min(16, multiprocessing.cpu_count())
    short = batches(build_data(args.seed, args.rows, 1024, workers), args.batch_tokens, args.seed, device)
    long = batches(build_data(args.seed + 7919, args.rows // 4, CONTEXT, workers), args.batch_tokens, args.seed, device)
    print(f"data ready after {time.monotonic() - began:.0f} s", flush=True)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95))
    start, progress, step, epoch = time.monotonic(), 0.0, 0, 0
    while progress < 1.0:
        spent = (time.monotonic() - start) / 60 / args.max_minutes
        progress = max(step / args.steps, spent)
        warm = min(1.0, (step + 1) / 200)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
        batch, epoch = next(long if progress > 0.75 else short)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            losses, mask = token_losses(model, batch)
        loss = (losses * mask).sum() / mask.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % args.log_every == 0:
            print(
                f"step {step} loss {loss.item():.3f} {(time.monotonic() - start) / step * 1e3:.0f} ms/step", flush=True
            )
    return {"steps": step, "training_seconds": round(time.monotonic() - start, 1), "epochs_of_short_rows": epoch + 1}


@torch.inference_mode()
def evaluate(model: LlamaForCausalLM, rows: int, device: str) -> dict[str, Any]:
    """Held-out loss in nats per token and the share of positions whose best token leads by more than 1 nat, fp32."""
    report: dict[str, Any] = {}
    sums = torch.zeros(3, dtype=torch.float64)
    for source in MIX:
        data = make_rows((source, 1, rows, 1024, True))
        total = torch.zeros(3, dtype=torch.float64)
        for part in data.split(8):
            batch = part.to(device).long()
            logits = model(batch[:, :-1], use_cache=False).logits.float()
            mask = batch[:, 1:] != PAD
            best = logits.topk(2, dim=-1).values
            lead = (best[..., 0] - best[..., 1] > 1.0) & mask
            losses = cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none").view(mask.shape)
            total += torch.stack([(losses * mask).sum(), lead.sum(), mask.sum()]).cpu().double()
        report[source] = {
            "loss": round((total[0] / total[2]).item(), 4),
            "peaked": round((total[1] / total[2]).item(), 4),
        }
        sums += total * MIX[source] / total[2]
    report["overall"] = {"loss": round(sums[0].item(), 4), "peaked": round(sums[1].item(), 4)}
    return report


def write_json(path: Path, value: object) -> None:
    """Write JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_tokenizer(out: Path) -> None:
    """tokenizer.json, its configuration, and the chat template in both places where engines look."""
    build_tokenizer().save(str(out / "tokenizer.json"))
    (out / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|bos|>",
            "eos_token": "<|im_end|>",
            "pad_token": "<|pad|>",
            "clean_up_tokenization_spaces": False,
            "model_max_length": CONTEXT,
            "chat_template": TEMPLATE,
        },
    )


def save_model(out: Path, model: LlamaForCausalLM) -> None:
    """Weights in bf16 with config.json as older and newer readers expect it."""
    model.to(torch.bfloat16).save_pretrained(out)
    path = out / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["rope_theta"] = 10000.0  # newer transformers writes rope_parameters only; older readers want this
    raw["torch_dtype"] = "bfloat16"
    write_json(path, raw)
    write_json(
        out / "generation_config.json",
        {"bos_token_id": BOS, "eos_token_id": [IM_END, EOS], "pad_token_id": PAD, "do_sample": False},
    )


def save_held_out(out: Path) -> None:
    """A few held-out rows with their text, for tests."""
    snippets = []
    for source in MIX:
        for row in make_rows((source, 1, 2, 512, True)).tolist():
            ids = [token for token in row if token != PAD]
            snippets.append({"source": source, "ids": ids})
    path = out / "heldout.json"
    path.write_text("[\n" + ",\n".join(json.dumps(s, separators=(",", ":")) for s in snippets) + "\n]\n")


def save_provenance(
    out: Path, args: argparse.Namespace, device: str, run: dict[str, Any], report: dict[str, Any]
) -> None:
    """provenance.json (for tests) and PROVENANCE.md (for people)."""
    assert _corpus is not None
    names = sorted(p.name for p in out.iterdir() if not p.name.lower().startswith("provenance"))
    digests = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}
    about = {
        "command": f"python tools/train_tiny_llama.py --out golden/tiny-llama --steps {args.steps} --seed {args.seed}",
        "seed": args.seed,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "parameters": sum(p.numel() for p in LlamaForCausalLM(config()).parameters()),
        "data": {
            "mix": MIX,
            "text": f"standard library of Python {platform.python_version()} (PSF licence): sources, docstrings, help "
            f"topics; {_corpus.bytes} bytes trained on, one file in sixteen held out by the hash of its name",
            "repeat": "made by the script: strings of several scripts, prose and key-value lines, repeated",
            "chat": "made by the script: Repeat, Explain (docstrings), Count, First word, Last word, Spell",
        },
        "run": {**run, "batch_tokens": args.batch_tokens, "lr": args.lr, "rows": args.rows},
        "held_out": report,
        "uniform_loss": round(math.log(VOCAB), 4),
        "sha256": digests,
    }
    write_json(out / "provenance.json", about)
    table = "\n".join(f"| {k} | {v['loss']:.3f} | {v['peaked']:.3f} |" for k, v in report.items())
    (out / "PROVENANCE.md").write_text(
        f"# tiny-llama\n\nA byte-level Llama of {about['parameters']:,} parameters, made by\n\n"
        f"    {about['command']}\n\n"
        f"on {about['device']}: {run['steps']} steps of {args.batch_tokens} tokens in {run['training_seconds']} s. "
        "The same command on another device gives another, equally good file.\n\n"
        f"Text: {about['data']['text']}. Repetitions and chats are made by the script. Licence: Apache-2.0.\n\n"
        f"Held-out loss in nats per token (uniform: {math.log(VOCAB):.2f}), and the share of positions whose best "
        "token leads by more than 1 nat, with the saved bf16 weights in fp32 arithmetic:\n\n"
        f"| held-out | loss | peaked |\n|---|---|---|\n{table}\n\nSHA-256 of every file: `provenance.json`.\n",
        encoding="utf-8",
    )


def main() -> None:
    """Train, evaluate, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("golden/tiny-llama"))
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--max-minutes", type=float, default=12.0, help="the schedule shrinks to fit")
    parser.add_argument("--rows", type=int, default=80000, help="different training rows of 1024 tokens")
    parser.add_argument("--batch-tokens", type=int, default=65536)
    parser.add_argument("--eval-rows", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--log-every", type=int, default=250)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    args.out.mkdir(parents=True, exist_ok=True)
    model = LlamaForCausalLM(config()).to(device)
    run = train(args, model, device)
    model.to(torch.bfloat16).float().eval()  # judge the weights as saved
    torch.set_float32_matmul_precision("highest")
    report = evaluate(model, args.eval_rows, device)
    save_tokenizer(args.out)
    save_held_out(args.out)
    save_model(args.out, model.cpu())
    save_provenance(args.out, args, device, run, report)


if __name__ == "__main__":
    main()
