"""The measurements of `throughput.py` that one trainer makes in one process, in its environment: an epoch for each.

It runs in a peer's environment as in ours, so it imports nothing of ochat but for our own arm. Every arm is given the same
lengths, model shape, precision, learning rate and optimizer, and is timed over one whole epoch: from the first batch to the last
optimizer step, with no logging, saving or evaluation between. Before it, the same arm runs over eight short rows, which pays
for what is made once (kernels, allocators, worker state)."""

import contextlib
import gc
import json
import os
import platform
import random
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

PROMPT_SHARE = 3  # the first third of a row is its prompt, which is not learned
LEARNING_RATE = 1e-5
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": (
        "llama",
        {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 1024,
            "tie_word_embeddings": True,
        },
    ),
    "smollm2-135m": (
        "llama",
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
        },
    ),
    "llama-1b": (
        "llama",
        {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "tie_word_embeddings": True,
        },
    ),
    "mistral-7b": (
        "mistral",
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 32000,
            "tie_word_embeddings": False,
            "sliding_window": None,
        },
    ),
}


@dataclass(frozen=True)
class Spec:
    """What an arm is to measure."""

    arm: str
    shape: str
    layers: int | None
    precision: str  # bf16, bf16-autocast or fp32
    lengths: list[int]  # for padded batches in their order
    step_tokens: int  # tokens of an optimizer step, about
    row_tokens: int  # the longest row; TRL's max_length
    micro_rows: int  # rows of a padded forward
    device: str
    checkpointing: bool
    masters: bool  # float32 master weights in our own arm
    trl_attention: str
    compile: bool = False


@dataclass
class Timer:
    """Wall and processor seconds between start and stop, with the device's queue empty at both."""

    device: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    steps: int = 0
    slots: int = 0
    tokens: int = 0
    learned: int = 0
    _started: tuple[float, float] = field(default=(0.0, 0.0))

    def _now(self) -> tuple[float, float]:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    def start(self) -> None:
        """From here."""
        self._started = self._now()

    def stop(self) -> None:
        """To here."""
        wall, cpu = self._now()
        self.seconds, self.cpu_seconds = wall - self._started[0], cpu - self._started[1]


def quantiles(distribution: str, n: int) -> list[int]:
    """The lengths of n rows, shuffled: the (i + 0.5) / n quantiles, so that a small sample has the shape of a large one."""
    normal = statistics.NormalDist()
    lengths = []
    for i in range(n):
        q = (i + 0.5) / n
        match distribution:
            case "conversations":  # median 282, mean 400
                length, longest = 282 * 2.718281828 ** (0.836 * normal.inv_cdf(q)), 2048
            case "short":  # median 100, mean 120
                length, longest = 100 * 2.718281828 ** (0.604 * normal.inv_cdf(q)), 512
            case "bimodal":  # nine of ten short, one of ten 1,536 to 2,048
                short = 100 * 2.718281828 ** (0.604 * normal.inv_cdf(min(q / 0.9, 0.999)))
                length, longest = (short if q < 0.9 else 1536 + 512 * (q - 0.9) / 0.1), 2048
            case _:
                raise ValueError(f"no distribution {distribution!r}")
        lengths.append(max(16, min(longest, round(length))))
    random.Random(0).shuffle(lengths)
    return lengths


def make_rows(spec: Spec, lengths: list[int]) -> list[list[int]]:
    """Random token ids, the same for every arm."""
    vocabulary = SHAPES[spec.shape][1]["vocab_size"]
    rng = random.Random(1)
    return [[rng.randrange(8, vocabulary) for _ in range(n)] for n in lengths]


def make_model(spec: Spec, attention: str) -> Any:
    """A model of the shape with random weights, the same for every arm."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

    kind, shape = SHAPES[spec.shape]
    shape = {**shape, "num_hidden_layers": spec.layers or shape["num_hidden_layers"], "max_position_embeddings": 8192}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = {"llama": LlamaConfig, "mistral": MistralConfig}[kind](**shape, **ids)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
    with torch.device(spec.device):
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    return model.to(spec.device).train()


def examples(rows: list[list[int]]) -> Any:
    """The rows as a `datasets.Dataset` with labels, the prompt's being -100."""
    from datasets import Dataset

    labels = [[-100] * (len(row) // PROMPT_SHARE) + row[len(row) // PROMPT_SHARE :] for row in rows]
    return Dataset.from_dict({"input_ids": rows, "labels": labels, "length": [len(row) for row in rows]})


def timing(timer: Timer) -> Any:
    """A callback that times a Trainer's loop."""
    from transformers import TrainerCallback

    class Timing(TrainerCallback):  # type: ignore[misc, unused-ignore]  # transformers' classes are Any to mypy
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            timer.start()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            timer.stop()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            timer.steps += 1

    return Timing()


def common_arguments(spec: Spec, folder: str) -> dict[str, Any]:
    """The settings that all of transformers' trainers share here."""
    return {
        "output_dir": folder,
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-5,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "bf16": spec.precision == "bf16-autocast",
        "use_cpu": spec.device == "cpu",
        "gradient_checkpointing": spec.checkpointing,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
    }


def count(timer: Timer, batch: dict[str, Any]) -> dict[str, Any]:
    """Add what a batch holds to the timer's counts. The first label of a row is predicted by nothing."""
    timer.slots += batch["input_ids"].numel()
    timer.tokens += int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()
    timer.learned += int((batch["labels"][:, 1:] != -100).sum())
    return batch


def padded(spec: Spec, rows: list[list[int]], timer: Timer, model: Any) -> None:
    """transformers.Trainer over batches padded to their longest row."""
    import torch
    from transformers import Trainer, TrainingArguments

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        longest = max(len(row["input_ids"]) for row in batch)
        fill = {"input_ids": 0, "labels": -100}
        out = {
            name: torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in batch])
            for name, value in fill.items()
        }
        out["attention_mask"] = torch.tensor([[1] * row["length"] + [0] * (longest - row["length"]) for row in batch])
        return count(timer, out)

    mean = sum(map(len, rows)) / len(rows)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            **common_arguments(spec, folder),
            per_device_train_batch_size=spec.micro_rows,
            gradient_accumulation_steps=max(1, round(spec.step_tokens / (spec.micro_rows * mean))),
            train_sampling_strategy="sequential",  # the rows come batch by batch already, at random or grouped
        )
        Trainer(model, arguments, collate, examples(rows), callbacks=[timing(timer)]).train()


def trl_packed(spec: Spec, rows: list[list[int]], timer: Timer, model: Any) -> None:
    """TRL's SFTTrainer with its best-fit-decreasing packing, one pack a forward."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined] # they are loaded lazily

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="<pad>")),
        pad_token="<pad>",
        eos_token="</s>",
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            **common_arguments(spec, folder),
            max_length=spec.row_tokens,
            packing=True,
            packing_strategy="bfd",
            per_device_train_batch_size=1,
            gradient_accumulation_steps=max(1, round(spec.step_tokens / spec.row_tokens)),
        )
        data = examples(rows).remove_columns("length")
        trainer = SFTTrainer(
            model,
            arguments,
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[timing(timer)],
        )
        collate = trainer.data_collator
        trainer.data_collator = lambda batch: count(timer, collate(batch))
        trainer.train()


def ours(spec: Spec, rows: list[list[int]], timer: Timer, model: Any) -> None:
    """Our plan, batch, loss and optimizer, in the order in which `ochat train run` calls them."""
    import numpy as np
    import torch

    from ochat.data.packing import plan
    from ochat.training.batch import make_batch
    from ochat.training.loss import LossModel
    from ochat.training.optimizer import MasterAdamW

    if spec.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if spec.compile:
        for layer in model.model.layers:
            layer.compile(dynamic=True)
    loss_model = LossModel(model)
    masters = MasterAdamW(model.named_parameters()) if spec.masters else None
    plain = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.1, fused=True)
    stored = []
    for i, row in enumerate(rows):
        prompt = len(row) // PROMPT_SHARE
        runs = np.array([prompt, len(row) - prompt], np.int32), np.array([0.0, 1.0 if i % 10 == 0 else 0.1], np.float32)
        stored.append((np.array(row, np.int32), *runs))
    timer.start()
    steps = plan(
        np.array([len(row) for row in rows]), epochs=1, batch_tokens=spec.step_tokens, pack_tokens=spec.step_tokens, seed=0
    )
    for step in range(len(steps)):
        for pack in steps.packs(step):
            batch = make_batch([stored[n] for n in pack])
            timer.slots += batch.input_ids.numel()
            timer.tokens += batch.input_ids.numel()
            timer.learned += len(batch.labels)
            (loss_model(batch.to(torch.device(spec.device))).total / 1000).backward()
            if masters:
                masters.add_gradients()
        if masters:
            masters.gradient_norm()
            masters.step(LEARNING_RATE)
        else:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            plain.step()
            plain.zero_grad()
        timer.steps += 1
    timer.stop()


ARMS: dict[str, tuple[Callable[[Spec, list[list[int]], Timer, Any], None], str]] = {
    "padded": (padded, "sdpa"),
    "grouped": (padded, "sdpa"),
    "trl": (trl_packed, "sdpa"),
    "ours": (ours, "ochat_packed"),
}


def flops(spec: Spec, model: Any, learned: int) -> float:
    """What an epoch needs: 6 for each matmul weight and token, the head for learned tokens alone, and 6·L·d for each pair of
    a token and one that it sees, causally half of Σ length². Padding and recomputing don't count."""
    config = model.config
    head = config.vocab_size * config.hidden_size
    body = sum(p.numel() for name, p in model.named_parameters() if "embed_tokens" not in name and "lm_head" not in name)
    squares = sum(n * n for n in spec.lengths)
    attention = 6 * config.num_hidden_layers * config.hidden_size * squares
    return float(6 * body * sum(spec.lengths) + 6 * head * learned + attention)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what the trainers print to stderr, so that stdout holds the result alone."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


def measure(spec: Spec) -> dict[str, Any]:
    """Warm up, then one epoch."""
    import torch
    import transformers

    run, attention = ARMS[spec.arm]
    if spec.arm == "trl":
        attention = spec.trl_attention
    elif spec.arm == "ours":
        from ochat.training import attention as ours_attention  # registers the name

        attention = ours_attention.NAME
    model = make_model(spec, attention)
    rows = make_rows(spec, spec.lengths)
    short = rows[:8] if spec.device == "cuda" else [row[:64] for row in rows[:8]]
    run(spec, short, Timer(spec.device), model)
    for parameter in model.parameters():
        parameter.grad = None
    gc.collect()
    if spec.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    timer = Timer(spec.device)
    run(spec, rows, timer, model)
    expected = sum(spec.lengths), sum(n - n // PROMPT_SHARE for n in spec.lengths)
    if (timer.tokens, timer.learned) != expected:
        raise SystemExit(f"{spec.arm} saw {timer.tokens} tokens, {timer.learned} learned, of {expected[0]} and {expected[1]}")
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise SystemExit(f"{spec.arm} made weights that are not finite")
    memory = (
        torch.cuda.max_memory_allocated()
        if spec.device == "cuda"
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    versions = {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}
    if spec.arm == "trl":
        import trl

        versions["trl"] = trl.__version__
    result = {name: value for name, value in asdict(timer).items() if not name.startswith("_")}
    result |= {"flops": flops(spec, model, timer.learned), "memory_gb": round(memory / 1e9, 2), "versions": versions}
    result["device"] = torch.cuda.get_device_name() if spec.device == "cuda" else "cpu"
    result["threads"] = torch.get_num_threads()
    return result


def main() -> None:
    """A JSON list of specs in, a line of JSON for each out."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for given in json.loads(sys.argv[1]):
        with quiet():
            measured = measure(Spec(**given))
            gc.collect()
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
