"""Results as logs of inspect-ai, for `inspect view`: its page for reading single replies is the best there is.

We ask with our own runner, which costs a fraction of inspect's time; only the log is theirs."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ochat.errors import require
from ochat.evaluation.results import Row, Run, count
from ochat.evaluation.tasks import BENCHMARKS, PRIVATE
from ochat.files import make_folder

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog


def write_logs(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write a `.eval` file for each benchmark of each run; returns their paths. GPQA has none."""
    require("inspect_ai", "inspect", "Writing inspect's logs")
    from inspect_ai.log import write_eval_log

    make_folder(folder)
    paths = []
    for index, run in enumerate(runs, start=1):
        for task_type, rows in run.by(lambda row: row.task_type).items():
            if task_type != PRIVATE:
                path = folder / f"{index}-{task_type.replace('/', '-')}.eval"
                write_eval_log(_log(run, task_type, rows), str(path))
                paths.append(path)
    return paths


def _log(run: Run, task_type: str, rows: Sequence[Row]) -> "EvalLog":
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalMetric, EvalResults, EvalSample, EvalScore, EvalSpec
    from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ModelOutput
    from inspect_ai.scorer import Score

    now, of = datetime.now(UTC).isoformat(), count(rows)
    samples = []
    for row in rows:
        message = ChatMessageAssistant(content=row.reply.encode("utf-8", "replace").decode())  # it may hold half of a character
        score = Score(
            value="C" if row.correct else "I",
            answer=str(row.answer),
            explanation="" if row.found else "no answer found",
            metadata={"original's grader": row.compatible},
        )
        samples.append(
            EvalSample(
                id=f"{row.task_name}/{row.row}",
                epoch=1,
                input=row.question,
                target=str(row.label),
                output=ModelOutput(
                    model=run.model,
                    choices=[ChatCompletionChoice(message=message, stop_reason="max_tokens" if row.cut else "stop")],
                ),
                messages=[message],
                scores={"strict": score},
            )
        )
    spec = EvalSpec(
        created=now,
        task=BENCHMARKS[task_type].name,
        dataset=EvalDataset(name=task_type, samples=len(rows)),
        model=run.model,
        config=EvalConfig(),
        task_args={"condition": run.condition},
    )
    metrics = {"accuracy": EvalMetric(name="accuracy", value=of.accuracy.value)}
    results = EvalResults(
        total_samples=len(rows),
        completed_samples=len(rows),
        scores=[EvalScore(name="strict", scorer="strict", metrics=metrics)],
    )
    return EvalLog(status="success", eval=spec, results=results, samples=samples)
