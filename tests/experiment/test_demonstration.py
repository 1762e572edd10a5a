"""The demonstration data: the same for the same seed, checkable without the condition, nothing held out is trained on."""

from ochat.evaluation.graders.choice import grade_choice
from ochat.experiment.demonstration import draw_questions, expert_answer, suboptimal_answer
from ochat.questions import Question

PROMPTS = draw_questions(300, seed=0)


def correct(answers: list[str]) -> float:
    grades = [
        grade_choice(Question.model_validate(question.as_benchmark()), answer)
        for question, answer in zip(PROMPTS, answers, strict=True)
    ]
    assert all(grade.found for grade in grades)
    return sum(grade.correct for grade in grades) / len(grades)


def test_the_expert_is_right_and_the_other_only_by_chance() -> None:
    assert correct([expert_answer(question) for question in PROMPTS]) == 1.0
    assert 0.18 < correct([suboptimal_answer(question) for question in PROMPTS]) < 0.32


def test_the_same_seed_draws_the_same_questions() -> None:
    assert draw_questions(300, seed=0) == PROMPTS != draw_questions(300, seed=1)


def test_held_out_questions_are_not_among_the_prompts() -> None:
    heldout = draw_questions(300, seed=0, without=frozenset(PROMPTS))  # the worst seed for it
    assert len(set(heldout)) == 300
    assert not {question.text for question in heldout} & {question.text for question in PROMPTS}


def test_questions_read_as_people_would_write_them() -> None:
    texts = {question.text for question in PROMPTS}
    assert all(text.endswith("?") and text[0].isupper() for text in texts)
    assert len(texts) == 300
