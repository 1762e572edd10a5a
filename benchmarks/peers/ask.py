"""Ask the prompts of a file with one client, by its own installed code: run by ../evaluation.py in that client's environment.

    python ask.py ours|inspect|lm-eval|openai PROMPTS.jsonl URL IN_FLIGHT FOLDER

Prints a line of JSON: the seconds from before the first request to after the last answer is filed, the process's peak of memory, and
the client's version."""

import asyncio
import json
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path


def ours(prompts: Path, url: str, in_flight: int, folder: Path) -> float:
    from ochat.evaluation import ask  # noqa: F401  # its start is not timed, as the others' imports aren't
    from ochat.evaluation.run_eval import Options, main

    options = Options(questions=prompts, base_url=url, output=folder / "out", parallel=in_flight, max_tokens=16)
    started = time.monotonic()
    main(options)
    return time.monotonic() - started


def openai(prompts: Path, url: str, in_flight: int, folder: Path) -> float:
    from openai import AsyncOpenAI

    questions = [json.loads(line)["question"] for line in prompts.open(encoding="utf-8")]

    async def run() -> None:
        slots = asyncio.Semaphore(in_flight)
        with (folder / "out.jsonl").open("w", encoding="utf-8") as out:
            async with AsyncOpenAI(base_url=url, max_retries=5) as client:

                async def one(question: str) -> None:
                    async with slots:
                        reply = await client.chat.completions.create(
                            model="echo", messages=[{"role": "user", "content": question}], temperature=0, max_tokens=16
                        )
                    out.write(json.dumps(reply.choices[0].message.content) + "\n")
                    out.flush()

                await asyncio.gather(*map(one, questions))

    started = time.monotonic()
    asyncio.run(run())
    return time.monotonic() - started


def inspect(prompts: Path, url: str, in_flight: int, folder: Path) -> float:
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import GenerateConfig, get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    rows = [json.loads(line) for line in prompts.open(encoding="utf-8")]
    samples = [Sample(input=row["question"], target=row["label"][0]) for row in rows]
    config = GenerateConfig(temperature=0, max_tokens=16, max_connections=in_flight)
    model = get_model("openai/echo", base_url=url, config=config, responses_api=False)
    started = time.monotonic()
    eval(
        Task(dataset=samples, solver=generate(), scorer=includes()),
        model=model,
        display="none",
        log_dir=str(folder),
        max_samples=in_flight,
    )
    return time.monotonic() - started


def lm_eval(prompts: Path, url: str, in_flight: int, folder: Path) -> float:
    import yaml
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    task = {
        "task": "echo",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(prompts)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{label[0]}}",
        "generation_kwargs": {"until": [], "max_gen_toks": 16, "temperature": 0},
        "metric_list": [{"metric": "exact_match"}],
    }
    (folder / "echo.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    arguments = f"model=echo,base_url={url}/chat/completions,num_concurrent={in_flight},tokenized_requests=False"
    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    started = time.monotonic()
    simple_evaluate(
        model="local-chat-completions",
        model_args=arguments,
        tasks=["echo"],
        task_manager=tasks,
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    return time.monotonic() - started


CLIENTS = {
    "ours": (ours, "ochat-crlft"),
    "openai": (openai, "openai"),
    "inspect": (inspect, "inspect-ai"),
    "lm-eval": (lm_eval, "lm-eval"),
}

if __name__ == "__main__":
    run, package = CLIENTS[sys.argv[1]]
    seconds = run(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "version": f"{package} {version(package)}"}))
