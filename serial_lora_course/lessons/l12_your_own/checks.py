"""Checks of the exercises on your own model: a split, the whole way, the ground of a page.

Of a split and of a trained model, what all right ones have in common is judged, since many are right.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.message import CheckFailed
from serial_lora_course.checking.running import exercise

# ------------------------------------------------------------------ 12.1 a split without a leak

OBJECTS = {0: 7, 1: 3, 2: 12, 3: 2}  # class -> objects


@cache
def object_names(label: int, count: int, collide: bool) -> list[str]:
    """Names of a class's objects: the same everywhere, or such that their hashes collide.

    A set of names that collide comes in the order in which it was filled. So a choice from a set
    that nobody sorted is found out here, not on another machine. Python draws its hashes anew for
    each process, and so these names differ: how many objects test is judged by the others.
    """
    names = (f"class{label}/object{number}" for number in itertools.count())
    wanted = (name for name in names if not collide or hash(name) % 128 == 0)
    return list(itertools.islice(wanted, count))


def listed_pictures(seed: int, collide: bool) -> tuple[list[str], list[int]]:
    """The object and the class of each picture, in an order that the seed shuffles.

    One object of a class has two thirds of its pictures, so that a share of the pictures is not
    that share of the objects.
    """
    rows = [
        (name, label)
        for label, objects in OBJECTS.items()
        for number, name in enumerate(object_names(label, objects, collide))
        for _ in range(2 * objects if number == objects // 2 else 1)
    ]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    objects, labels = zip(*(rows[position] for position in order), strict=True)
    return list(objects), list(labels)


def on_listings(attempt: Callable) -> Callable:
    """An answer for each of several orders of the same files, or for each of several seeds."""
    return lambda listings, share, seeds: [
        attempt(*listing, share, seed) for listing, seed in zip(listings, seeds, strict=True)
    ]


def sides_of(result: Any) -> list[list[int]]:
    """The positions on both sides of a split, of the right kind."""
    form = "return two lists, train and test, in that order: list(...) or .tolist() makes one"
    good = isinstance(result, (tuple, list)) and len(result) == 2
    if not good or not all(isinstance(side, list) for side in result):
        raise CheckFailed("the split", "two lists of positions", result, form, sure=True)
    if any(type(place) is not int for side in result for place in side):
        form = "return positions in the list, not names: enumerate(objects) gives both"
        raise CheckFailed("the split", "whole numbers", result, form, sure=True)
    return list(result)


def judged_split(results: list, listings: list, *_: Any) -> list:
    """What is required of a split: each picture once, objects whole, and their numbers."""
    (train, test), (objects, labels) = sides_of(results[0]), listings[0]
    places, both = set(train + test), {objects[i] for i in train} & {objects[i] for i in test}
    twice, lost = len(train + test) - len(places), len(objects) - len(places)
    held = [len({objects[i] for i in test if labels[i] == label}) for label in OBJECTS]
    return [f"{twice} twice, {lost} not at all", f"{len(both)} of {sum(OBJECTS.values())}", held]


def judged_objects(results: list, listings: list, *_: Any) -> str:
    """Whether the same objects test each time."""
    pairs = zip(map(sides_of, results), listings, strict=True)
    tests = [{objects[i] for i in test} for (_, test), (objects, _) in pairs]
    return "the same" if all(names == tests[0] for names in tests) else "different ones"


def advice_on_places(found: str) -> str:
    """What a picture that is twice there, or not at all, most likely means."""
    if found.startswith("0 twice"):
        return "some pictures are in neither list: those of held-out objects go to test, all others to train"
    return "a picture is in both train and test, which is the most direct leak: put it into one of them"


def advice_on_numbers(held: list[int]) -> str:
    """What the numbers of objects that test most likely mean."""
    if 0 in held:
        return "a class has no object in test: choose within each class, at least one object"
    if any(number == OBJECTS[label] for label, number in enumerate(held)):
        return "all objects of a class are in test, so nothing is left to learn it from"
    return "the number of objects is wrong: choose within each class that share of its objects, not of its pictures"


@exercise(
    "12.1",
    "every picture is used once, no object is in both train and test, every class is in both, in any order of files; another seed holds out others",
    through=on_listings,
)
def split_without_leak() -> Iterator[Case]:
    """Properties of four shares, and the same files in three orders."""
    often, both = "how often each picture is used", "objects in both train and test"
    sizes = ", ".join(map(str, OBJECTS.values()))
    held_out = {0.3: [2, 1, 4, 1], 0.1: [1, 1, 1, 1], 0.9: [6, 2, 11, 1]}
    held_out |= {0.375: [3, 1, 4, 1]}  # of 12 objects 4.5, which round() makes even
    for share, right in held_out.items():
        listing = listed_pictures(1, collide=False)
        held = f"how many objects of each class, of {sizes}, are in test at a share of {share}"
        yield Case(
            f"the split of {len(listing[0])} pictures of {sum(OBJECTS.values())} objects",
            ([listing], share, [0]),
            Parts(
                {often: "0 twice, 0 not at all", both: f"0 of {sum(OBJECTS.values())}", held: right}
            ),
            read=judged_split,
            advice={
                often: advice_on_places,
                both: "pictures of one object are on both sides: choose objects, and all pictures of a chosen "
                "one test",
                held: advice_on_numbers,
            },
        )
    yield Case(
        "the objects in test, when the same files are listed in another order",
        ([listed_pictures(seed, collide=True) for seed in (1, 4, 8)], 0.3, [2] * 3),
        "the same",
        read=judged_objects,
        advice="sort the objects of a class before you choose, and choose by the seed alone",
    )
    yield Case(
        "the objects in test, at three seeds",
        ([listed_pictures(1, collide=False)] * 3, 0.3, [0, 1, 2]),
        "different ones",
        read=judged_objects,
        advice="another seed has to hold out other objects",
    )


# ------------------------------------------------------------------------ 12.2 the whole way

DIFFERENT = "the weights that differ from the base, and the rank of the difference"
VERIFIED = "the merge is verified"
MANY_STEPS = 10
WAY: dict[str, tuple[Any, str]] = {
    "the classifier": (
        ["VisionTransformer", "LayerNorm", "Linear", "3 scores"],
        "nn.Sequential(vision, nn.LayerNorm(width), nn.Linear(width, classes)), one score a class",
    ),
    "the optimizer's steps": (
        "10 of Adam or AdamW at a rate of 0.06",
        "take `steps` steps of AdamW at `lr`",
    ),
    "what the optimizer trains": (
        "pairs and head",
        "pass all parameters that require gradients to the optimizer: the pairs' and the head's",
    ),
    "the loss in the steps": (
        "cross-entropy",
        "F.cross_entropy takes the scores as they are, and labels",
    ),
    "adapters, hooks and parameters that are left in the model": (
        0,
        "eject(adapted, keep_merged=True)",
    ),
    DIFFERENT: (
        ["blocks.0.attn.qkv.weight: 2"],
        "only the weights of q, k and v may differ, by the rank of the pair",
    ),
    "objects in both train and test": ("none", "split by object, and draw from `train` alone"),
    "the objects in test at another seed": ("others", "pass `seed` to your split"),
    "objects of each class in test, of eight": ([2, 2, 2], "a share of 0.25 of each class"),
    "the training does not use the test pictures": (True, "draw the batches from `train` alone"),
    "the gradient is reset in each step": (
        True,
        "call zero_grad() before backward(), in each step",
    ),
    "no batch has more than 16 pictures": (True, "draw at most 16 training pictures per step"),
    "batches are drawn anew": (True, "draw new pictures in each step"),
    "what the adapted model is run on before the merge": (
        "the test pictures",
        "run it on the test pictures, before you merge",
    ),
    VERIFIED: (True, "the merge was right: compare outputs of the adapted and of the merged model"),
}
"""What counts in an answer: what is right, and advice where it is not."""


def seeded(attempt: Callable, *given: Any) -> Any:
    """What an attempt returns when every usual source of random numbers starts anew."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002, which learners use too
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    try:
        return attempt(*given)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


class Watch:
    """Notes calls of a model with an adapter in it, its scores' gradients, optimizers' steps."""

    def __init__(self, pictures: Tensor, labels: Tensor) -> None:
        self.class_of = dict(zip(pixels(pictures).tolist(), labels.tolist(), strict=True))
        self.batches: list[Tensor] = []  # a pixel of each picture, where gradients flow
        self.asked: list[Tensor] = []  # ... of every call
        self.quiet = False  # whether a call was without gradients
        self.gradients: list[Tensor] = []
        self.pair: Tensor | None = None
        self.right_slopes: list[bool] = []
        self.steps: Counter[str] = Counter()
        self.trained: set[torch.Size] = set()

    def __enter__(self) -> Watch:
        self.handles = [
            register_module_forward_hook(self.note_scores),
            register_optimizer_step_post_hook(self.note_step),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def __call__(self, model: nn.Module, given: tuple[Tensor]) -> None:
        """A forward pre-hook of the vision model."""
        pairs = [p for name, p in model.named_parameters() if name.endswith("lora_B")]
        if not pairs:
            return
        self.asked.append(pixels(given[0].detach()))
        if torch.is_grad_enabled():
            self.batches.append(self.asked[-1])
        self.quiet |= not torch.is_grad_enabled()
        if self.pair is None and pairs[0].requires_grad:
            self.pair = pairs[0]
            self.pair.register_hook(self.gradients.append)

    def note_scores(self, module: nn.Module, _: tuple, scores: Any) -> None:
        """Cross-entropy's gradient for a score is its softmax, less one for the right class."""
        scored = isinstance(module, nn.Linear) and scores.ndim == 2 and scores.requires_grad
        if not scored or not self.batches:
            return
        labels = [self.class_of.get(pixel, -1) for pixel in self.batches[-1].tolist()]
        if min(labels) < 0 or len(labels) != len(scores):
            return  # pictures that an answer made itself
        truth = nn.functional.one_hot(torch.tensor(labels), scores.shape[1])
        wanted = (scores.detach().softmax(-1) - truth).flatten()

        def compare(slope: Tensor) -> None:
            alike = torch.cosine_similarity(slope.flatten(), wanted, dim=0) > 0.999
            self.right_slopes.append(bool(alike))

        scores.register_hook(compare)

    def note_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """What an optimizer is, its rate, and what it trains."""
        adam = isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW))
        name = "Adam or AdamW" if adam else type(optimizer).__name__
        self.steps[f"of {name} at a rate of {optimizer.param_groups[0]['lr']:g}"] += 1
        self.trained |= {p.shape for group in optimizer.param_groups for p in group["params"]}

    def __deepcopy__(self, memo: dict) -> Watch:
        """Copies of the model are watched by the same."""
        return self

    def each_step_by_itself(self) -> bool:
        """Whether the gradient that is left is not the sum of all."""
        left = None if self.pair is None else self.pair.grad
        return left is None or not torch.equal(left, sum(self.gradients))

    def said(self, head: nn.Module, tested: Tensor) -> list[str]:
        """In words: the optimizer's steps, what it trains, the loss, what the model was run on."""
        kinds = {"pairs": self.pair, "head": getattr(head, "weight", None)}
        trained = [k for k, p in kinds.items() if p is not None and p.shape in self.trained]
        asked = torch.cat([torch.zeros(0), *self.asked])
        others = "other pictures" if self.quiet else "none"
        return [
            " and ".join(f"{times} {kind}" for kind, times in self.steps.items()) or "none",
            " and ".join(trained) or "neither pairs nor head",
            "cross-entropy" if self.right_slopes and all(self.right_slopes) else "another",
            "the test pictures" if bool(torch.isin(tested, asked).all()) else others,
        ]


def pixels(pictures: Tensor) -> Tensor:
    """One pixel of each picture, by which it is known."""
    return pictures[:, 0, 0, 0]


def judged_way(attempt: Callable) -> Callable:
    """What counts of an answer: the model it gives, and whether other test pictures change it."""

    def ask(vision, pictures, labels, objects, steps, rank, lr, seed):
        with Watch(pictures, labels) as watch:
            handle = vision.register_forward_pre_hook(watch)
            result = seeded(attempt, vision, pictures, labels, objects, steps, rank, lr, seed)
            handle.remove()
        good = isinstance(result, (tuple, list)) and len(result) == 3
        if not good or not isinstance(result[0], nn.Sequential) or len(result[0]) != 3:
            form = (
                "return three things: nn.Sequential(vision, norm, linear), test positions, verified"
            )
            raise CheckFailed("what is returned", "three things", result, form, sure=True)
        model, test, verified = result[0], [int(i) for i in result[1]], result[2]
        known, state = vision.state_dict(), model[0].state_dict()
        changed = [n for n in known if n in state and not torch.equal(known[n], state[n])]
        ranks = [torch.linalg.matrix_rank(state[n] - known[n], rtol=1e-3) for n in changed]
        different = [f"{name}: {rank}" for name, rank in zip(changed, ranks, strict=True)]
        if steps < MANY_STEPS:
            return [different, verified]
        train = [i for i in range(len(objects)) if i not in set(test)]
        other = pictures.clone()
        other[test] = 1 - other[test]
        given = copy.deepcopy(vision), other, labels, objects
        again = seeded(attempt, *given, steps, rank, lr, seed)[0]
        elsewhere = {int(i) for i in seeded(attempt, *given, 0, rank, lr, seed + 1)[1]}
        modules = model[0].modules()
        hooks = [h for m in modules for h in (m._forward_hooks | m._forward_pre_hooks).values()]
        tested = [{objects[i] for i in test if labels[i] == label} for label in range(3)]
        *of_steps, asked = watch.said(model[2], pixels(pictures[test]))
        return [
            [type(each).__name__ for each in model]
            + [f"{getattr(model[2], 'out_features', 'no')} scores"],
            *of_steps,
            sum(hook is not watch for hook in hooks) + len(state.keys() - known.keys()),
            different,
            "some" if {objects[i] for i in train} & set().union(*tested) else "none",
            "others" if elsewhere != set(test) else "the same",
            [len(names) for names in tested],
            all(map(torch.equal, model.state_dict().values(), again.state_dict().values())),
            watch.each_step_by_itself(),
            all(len(batch) <= 16 for batch in watch.batches),
            any(not torch.equal(batch, watch.batches[0]) for batch in watch.batches),
            asked,
            verified,
        ]

    return ask


@exercise(
    "12.2",
    "the split is by object, pairs and head are trained as the card says, on the training pictures only, "
    "and the merge is right; it is verified when it is exact and something was trained, and only then",
    through=judged_way,
)
def from_folder_to_model() -> Iterator[Case]:
    """Three colours, eight objects each, photographed twice; then no step, and an inexact merge."""
    from timm.models.vision_transformer import VisionTransformer  # seconds, for this exercise alone

    class Drifting(VisionTransformer):
        """Its outputs grow a little from call to call, by more than 1e-4 and less than 1e-2."""

        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x) * (1 + 1e-3 * self.calls)

    sizes = dict(img_size=8, patch_size=4, embed_dim=12, depth=1, num_heads=2, num_classes=0)
    vision, drifting = VisionTransformer(**sizes).eval(), Drifting(**sizes).eval()
    labels = torch.arange(3).repeat_interleave(16)
    objects = [f"object {i // 2}" for i in range(48)]
    pictures = 0.2 * torch.rand(48, 3, 8, 8)
    pictures[torch.arange(48), labels] += 0.8
    order = torch.randperm(48)
    given = pictures[order], labels[order], [objects[i] for i in order.tolist()]
    whole, still = (
        {part: right for part, (right, _) in WAY.items()},
        {DIFFERENT: [], VERIFIED: False},
    )
    drifted = {DIFFERENT: whole[DIFFERENT], VERIFIED: False}
    for what, model, steps, right in (
        ("what is returned", vision, MANY_STEPS, whole),
        ("what is returned after no step", vision, 0, still),
        ("what is returned after a merge that is not exact", drifting, 3, drifted),
    ):
        yield Case(
            what,
            (model, *given, steps, 2, 6e-2, 3),
            Parts(right),
            read=lambda found, *_: found,
            advice={part: advice for part, (_, advice) in WAY.items()},
        )


# ------------------------------------------------------------------------ 12.3 the ground of a page


@exercise(
    "12.3",
    "the ground is exact on white, and on wood that lies or stands, with small, wide and tall things",
)
def ground_under_things() -> Iterator[Case]:
    """Against the ground on which the things were laid."""
    chance = np.random.default_rng(5)
    along = (chance.uniform(0.6, 1, (60, 1, 1)) * [245, 215, 180]).astype(int)
    lying = np.broadcast_to(along, (60, 60, 3))
    small, wide = (slice(8, 28), slice(10, 32)), (slice(20, 30), slice(2, 58))
    for what, ground, covered in (
        ("white paper with a small thing", np.full((60, 60, 3), 250), small),
        ("wood whose grain lies, with a small thing", lying, small),
        ("wood whose grain stands, with a small thing", lying.swapaxes(0, 1), small),
        ("white paper with a wide thing", np.full((60, 60, 3), 250), wide),
        ("white paper with a tall thing", np.full((60, 60, 3), 250), wide[::-1]),
    ):
        page = ground.copy()
        page[covered] = [90, 40, 60]
        page[20:24, 26:32] = 255  # a light part, which is in every one of the things
        yield Case(
            f"the ground of {what}",
            (page,),
            torch.tensor(ground.astype(float)),
            read=lambda got, page: torch.tensor(np.broadcast_to(got, page.shape).astype(float)),
            form="return numbers that broadcast against the page, (H, W, 3): keepdims=True",
        )
