"""Naming what a learner did: the known wrong answers that make the same of the same inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from inspect import signature

from torch import Tensor

from serial_lora_course.checking.case import Case, Outcome, is_open, judge, observe
from serial_lora_course.checking.message import CheckFailed
from serial_lora_course.checking.solved import solved
from serial_lora_course.checking.worked import size, worked

PLAIN = (
    "return plain numbers, tensors of floating-point numbers, or lists of them, as the stub says"
)

Mistake = Callable | list[str]
"""A wrong answer: an edit of the solved lesson's (old part, new part, old, new ...), or a function."""
Mistakes = Mapping[str, Mistake | list[Mistake]]


@dataclass(frozen=True)
class Exercise:
    """The check of an exercise.

    Attributes:
        number: such as ``"2.3"``.
        verified: what a right answer has shown.
        cases: a generator of its cases; the same at every call, as random numbers are seeded.
        mistakes: known wrong answers by their cause, which is a sentence for the learner; a list
            where several have one cause.
        through: makes of an answer what is put to the cases, where that is not the answer itself:
            a generator is listed, a function is called with several inputs.
    """

    number: str
    verified: str
    cases: Callable[[], Iterable[Case]]
    mistakes: Mistakes
    through: Callable[[Callable], Callable] = lambda attempt: attempt

    def __call__(self, attempt: Callable) -> str:
        """Put an answer to the cases, in order, and say what a right one has shown.

        Raises:
            CheckFailed: it is wrong; with the mistakes that explain it.
        """
        cases, seen, put = list(self.cases()), [], self.through(attempt)
        for case in cases:
            try:
                seen.append(observe(case, put))
                judge(case, seen[-1])
            except CheckFailed as failure:
                if not failure.sure:
                    swapped = reordered(attempt, self.number)
                    failure.causes = swapped or self.causes(cases, seen, put, failure)
                if failure.vague and not failure.causes:
                    with suppress(Exception):  # too strange an answer to be run once more
                        failure.worked = self.worked(cases, attempt)
                raise
            except Exception as error:
                if is_open(error):
                    raise
                told = f"something that cannot be compared ({type(error).__name__})"
                raise CheckFailed(case.what, "a plain result", told, PLAIN, sure=True) from error
        return self.verified

    def worked(self, cases: list[Case], attempt: Callable) -> list[str]:
        """The smallest case that an attempt gets wrong, worked by the solved answer and by it."""

        def wrong(case: Case) -> bool:
            try:
                judge(case, observe(case, self.through(attempt)))
            except CheckFailed:
                return True
            return False

        smallest = min(filter(wrong, cases), key=lambda case: size(case.arguments))
        return worked(attempt, solved(self.number), self.through, smallest)

    def wrong_answers(self, cause: str) -> list[Callable]:
        """The wrong answers that have one cause."""
        known = self.mistakes[cause]
        one = callable(known) or isinstance(known[0], str)
        several = [known] if one else known
        return [e if callable(e) else solved(self.number, tuple(e)) for e in several]

    @cached_property
    def known(self) -> dict[str, list[Callable]]:
        """All wrong answers by their cause, as they are put to the cases."""
        return {cause: [*map(self.through, self.wrong_answers(cause))] for cause in self.mistakes}

    @cached_property
    def outcomes(self) -> dict[tuple[Callable, int], Outcome]:
        """What wrong answers made of the cases, which are the same at every call."""
        return {}

    def causes(
        self, cases: list[Case], seen: list[Outcome], attempt: Callable, failure: CheckFailed
    ) -> list[str]:
        """The mistakes that make of a failed case what the attempt made of it.

        If several do, the other cases decide between them; if they cannot, all are possible. A
        number, a short list or an error agrees with a mistake by chance, so one alone has to fit
        everywhere as well; a tensor of floating-point numbers or a fact read from a result does not.
        """
        last = len(seen) - 1
        outcome, names = seen[last], [*seen[last].values]
        part = names.index(failure.what) if failure.what in names else None

        def fits(mistake: Callable, place: int, which: int | None) -> bool:
            if (mistake, place) not in self.outcomes:
                with warnings.catch_warnings(action="ignore"):  # its lines are not the learner's
                    self.outcomes[mistake, place] = observe(cases[place], mistake)
            return explains(cases[place], self.outcomes[mistake, place], seen[place], which)

        fit = {
            cause: some
            for cause, known in self.known.items()
            if (some := [f for f in known if fits(f, last, part)])
        }
        got = outcome.values.get(failure.what)
        wanted = cases[last].parts().get(failure.what)
        certain = isinstance(got, Tensor) and got.is_floating_point() and got.numel() > 1
        certain = certain and got.shape == getattr(wanted, "shape", None)
        certain = certain or (cases[last].read is not None and isinstance(got, (str, dict)))
        if not fit or (certain and len(fit) == 1):
            return list(fit)
        seen = seen + [observe(case, attempt) for case in cases[len(seen) :]]
        places = range(len(cases))
        # In all that an answer gives; or in what is wrong with it, if that is more than yes or no.
        for which in (None,) if isinstance(got, bool) else (None, part):
            everywhere = [
                cause
                for cause, known in fit.items()
                if any(all(fits(f, place, which) for place in places) for f in known)
            ]
            if everywhere:
                return everywhere
        return []


def reordered(attempt: Callable, number: str) -> list[str]:
    """What to say of an answer whose arguments are the stub's in another order; else nothing."""
    with suppress(Exception):  # no function, or no solved lesson
        stub, own = (list(signature(each).parameters) for each in (solved(number), attempt))
        if stub != own and sorted(stub) == sorted(own):
            return [f"the arguments are in another order: keep the stub's, {', '.join(stub)}"]
    return []


def explains(case: Case, theirs: Outcome, outcome: Outcome, part: int | None = None) -> bool:
    """Whether a mistake makes of a case what an attempt made of it; of one part, or of all."""
    if outcome.failure or theirs.failure:
        return trace_of(outcome) == trace_of(theirs)
    names = [*outcome.values]
    if part is not None and part < len(names):
        return case.close(outcome.values[names[part]], theirs.values[names[part]])
    alike = [case.close(got, theirs.values[name]) for name, got in outcome.values.items()]
    slopes = [case.close(got, theirs.gradients[name]) for name, got in outcome.gradients.items()]
    return all(alike) and all(slopes)


def trace_of(outcome: Outcome) -> tuple | None:
    """What tells one failure from another."""
    failure = outcome.failure
    return (failure.what, failure.got) if failure else None
