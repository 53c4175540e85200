"""Checks of the exercises on Stable Diffusion 3: the path, the loss, the sampler, guidance, FID.

Every expected value is reached another way than in the lesson: one picture or one number at a time,
by finite differences, or by singular values in the place of a matrix root.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise
from serial_lora_course.measures.pictures import frechet_distance

# ------------------------------------------------------------------- 6.1 the path and its velocity


def point_between(latent: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Where one picture is when it has gone the share ``sigma`` of its way to the noise."""
    return torch.lerp(latent.double(), noise.double(), sigma)


def speed_at(latent: Tensor, noise: Tensor, sigma: float, step: float = 1e-3) -> Tensor:
    """How fast it goes there, by finite differences."""
    ahead, behind = (point_between(latent, noise, sigma + s) for s in (step, -step))
    return (ahead - behind) / (2 * step)


def path(
    point: Callable = lambda x, n, s: (1 - s) * x + s * n,
    speed: Callable = lambda x, n, s: n - x,
    shape: Callable = lambda sigmas: sigmas.view(-1, 1, 1, 1),
) -> Callable:
    """Points and velocities with one thing changed."""
    return lambda x, n, sigmas: (point(x, n, shape(sigmas)), speed(x, n, shape(sigmas)))


@exercise(
    "6.1",
    "equal to one picture at a time, and the velocity to finite differences, at both ends too",
    {
        "the ends are exchanged: sigma 0 is the picture, 1 the noise": path(
            lambda x, n, s: s * x + (1 - s) * n
        ),
        "the picture is not taken away as noise comes in: at sigma 1 it is gone": path(
            lambda x, n, s: x + s * n
        ),
        "that is the curved path of older diffusion models: here the way is straight": path(
            lambda x, n, s: (1 - s**2).sqrt() * x + s * n
        ),
        "one noise level for all: every picture has a sigma of its own": (
            path(lambda x, n, s: x + s[0] * (n - x)),
            path(lambda x, n, s: x + s.mean() * (n - x)),
        ),
        "the velocity came first: return the points, then the velocity": lambda *given: path()(
            *given
        )[::-1],
        "sigmas ran along the width, since it has as many columns as there are pictures, and "
        "nothing complained: give them the shape (B, 1, 1, 1)": path(shape=lambda sigmas: sigmas),
        "sigmas are (B,): give them the shape (B, 1, 1, 1) before they meet a picture": path(
            shape=lambda sigmas: sigmas.view(-1, 1, 1)
        ),
        "the sign: sigma grows from the picture to the noise, so the way leads there": path(
            speed=lambda x, n, s: x - n
        ),
        "that is the way gone so far: the velocity is the same everywhere": path(
            speed=lambda x, n, s: s * (n - x)
        ),
        "divided by sigma, which may be 0: the velocity is the end minus the beginning": path(
            speed=lambda x, n, s: (s * (n - x)) / s
        ),
        "that is the noise, which older diffusion models predict: the picture is subtracted": path(
            speed=lambda x, n, s: n
        ),
    },
)
def flow_path() -> Iterator[Case]:
    """Points and velocities of batches whose width does, and does not, equal their size."""
    batches = ((2, 3, 4), [0.25, 0.5, 0.9, 0.0]), ((2, 4, 5), [0.7, 0.1]), ((2, 3, 3), [1.0])
    for sizes, sigmas in batches:
        x, n = torch.randn(2, len(sigmas), *sizes)
        what = f"{len(sigmas)} latents of {' x '.join(map(str, sizes))}, sigmas {sigmas}"
        each = list(zip(x, n, sigmas, strict=True))
        points = torch.stack([point_between(*one) for one in each]).float()
        speeds = torch.stack([speed_at(*one) for one in each]).float()
        yield Case(
            what,
            (x, n, torch.tensor(sigmas)),
            Parts({f"the points of {what}": points, f"the velocity of {what}": speeds}),
            tolerance=1e-4,
            nan="divided by sigma, which may be 0: the velocity is the end minus the beginning",
            form="return both, the points first",
            error="sigmas are (B,): give them the shape (B, 1, 1, 1) before they meet a picture",
        )


# -------------------------------------------------------------------------------------- 6.2 the loss


class Toy(nn.Module):
    """A velocity with one weight a channel: of points (B, 2, h, w) and levels (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.7, -1.3]))

    def forward(self, points: Tensor, levels: Tensor) -> Tensor:
        """As a transformer does, it wants one level for each picture."""
        if levels.shape != points.shape[:1]:
            raise ValueError(f"one level a picture is wanted, not {tuple(levels.shape)}")
        return self.weight.view(1, 2, 1, 1) * points + levels.view(-1, 1, 1, 1) ** 2


def loss(
    compared: Callable = lambda v, x, n, s, p: (v - (n - x)).square().mean(),
    at: Callable = lambda x, n, s: (1 - s) * x + s * n,
    level: Callable = lambda sigmas: sigmas,
) -> Callable:
    """The loss with one thing changed."""

    def attempt(ask, x, n, sigmas):
        s = sigmas.view(-1, 1, 1, 1)
        points = at(x, n, s)
        return compared(ask(points, level(sigmas)), x, n, s, points)

    return attempt


@exercise(
    "6.2",
    "equal to one picture at a time, and the gradient of the model's weights with it",
    {
        "compared with the noise, as older diffusion models do: the target is the velocity": loss(
            lambda v, x, n, s, p: (v - n).square().mean()
        ),
        "the target's sign: the velocity leads from the picture to the noise": loss(
            lambda v, x, n, s, p: (v - (x - n)).square().mean()
        ),
        "compared with the points that the model was shown: the target is the velocity": loss(
            lambda v, x, n, s, p: (v - p).square().mean()
        ),
        "compared with the pictures: the model answers with a velocity": loss(
            lambda v, x, n, s, p: (v - x).square().mean()
        ),
        "pictures are compared, not velocities: that weighs the error by sigma squared": loss(
            lambda v, x, n, s, p: (p - s * v - x).square().mean()
        ),
        "the model is shown the clean pictures: show it the points on the way": loss(
            at=lambda x, n, s: x
        ),
        "the model is shown pure noise: show it the points on the way": loss(at=lambda x, n, s: n),
        "the ends are exchanged: sigma 0 is the picture, 1 the noise": loss(
            at=lambda x, n, s: s * x + (1 - s) * n
        ),
        "the model is given 1 - sigma: it wants the level of the noise": loss(
            level=lambda sigmas: 1 - sigmas
        ),
        "all pictures were given one noise level: each has its own": loss(
            level=lambda sigmas: sigmas.mean().expand(len(sigmas))
        ),
        "summed: the mean does not depend on how large a batch is": loss(
            lambda v, x, n, s, p: (v - (n - x)).square().sum()
        ),
        "absolute errors: they are squared": loss(lambda v, x, n, s, p: (v - (n - x)).abs().mean()),
        "the root of it: leave the root away": loss(
            lambda v, x, n, s, p: (v - (n - x)).square().mean().sqrt()
        ),
        "one number is wanted, the mean over everything, and still a tensor: no .item()": (
            loss(lambda v, x, n, s, p: (v - (n - x)).square().mean((1, 2, 3))),
            loss(lambda v, x, n, s, p: (v - (n - x)).square().mean().item()),
        ),
        "the errors cancel: square them before the mean": loss(
            lambda v, x, n, s, p: (v - (n - x)).mean()
        ),
    },
)
def flow_loss() -> Iterator[Case]:
    """A toy model's loss, one picture after another."""
    for sizes, sigmas in (
        ((2, 3, 4), [0.2, 0.6, 0.9]),
        ((2, 5, 2), [0.4]),
        ((2, 2, 2), [1.0, 0.0]),
    ):
        ask = Toy()
        x, n = torch.randn(2, len(sigmas), *sizes)
        errors = []
        for latent, noise, sigma in zip(x, n, sigmas, strict=True):
            point = torch.lerp(latent, noise, sigma)[None]
            gap = ask(point, torch.tensor([sigma]))[0] - noise + latent
            errors += [gap.flatten() @ gap.flatten() / gap.numel()]
        yield Case(
            f"the loss of {len(sigmas)} latents of {' x '.join(map(str, sizes))}, sigmas {sigmas}",
            (ask, x, n, torch.tensor(sigmas)),
            sum(errors) / len(errors),
            leaves=lambda ask, *_: {"the model's weights": ask.weight},
            form="one number is wanted, the mean over everything, and still a tensor: no .item()",
        )


# ----------------------------------------------------------------------------------- 6.3 the sampler


def drifting(points: Tensor, level: float) -> Tensor:
    """A velocity that depends on where one is, and on the level."""
    return points * (0.5 + level) - level


def walk(
    pairs: Callable = lambda levels: zip(levels[:-1], levels[1:], strict=True),
    step: Callable = lambda x, velocity, here, there: x + (there - here) * velocity(x, here),
) -> Callable:
    """A sampler with one thing changed."""

    def attempt(velocity, noise, levels):
        x = noise
        for here, there in pairs(levels):
            x = step(x, velocity, here, there)
        return x

    return attempt


def at_the_start(velocity, noise, levels):
    """Asks for the velocity of the noise at every step."""
    return noise + sum(
        (b - a) * velocity(noise, a) for a, b in zip(levels, levels[1:], strict=False)
    )


@exercise(
    "6.3",
    "equal to one number at a time, for even and for uneven levels, and for a single step",
    {
        "the sign of the step: the following level minus this one, which is below zero": walk(
            step=lambda x, velocity, here, there: x + (here - there) * velocity(x, here)
        ),
        "a step is as long as the *difference* of two levels": (
            walk(step=lambda x, velocity, here, there: x - here * velocity(x, here)),
            walk(step=lambda x, velocity, here, there: x - there * velocity(x, here)),
        ),
        "the velocity alone was added: it is multiplied by the difference of the levels": (
            walk(step=lambda x, velocity, here, there: x + velocity(x, here)),
            walk(step=lambda x, velocity, here, there: x - velocity(x, here)),
        ),
        "the model is asked at the following level: ask where you are": walk(
            step=lambda x, velocity, here, there: x + (there - here) * velocity(x, there)
        ),
        "the model is asked about the noise again and again: ask at the point you have reached": (
            at_the_start
        ),
        "all of it in one step: go from level to level, and ask at each": walk(
            pairs=lambda levels: [(levels[0], levels[-1])]
        ),
        "the last step is missing: the last level, 0, is where you arrive": walk(
            pairs=lambda levels: list(zip(levels[:-1], levels[1:], strict=True))[:-1]
        ),
        "the levels are walked backwards: begin at the noise, with the first of them": walk(
            pairs=lambda levels: list(zip(levels[::-1], levels[::-1][1:], strict=False))
        ),
        "steps of one length: the levels need not be at equal distances": walk(
            pairs=lambda levels: [
                (here, here - levels[0] / (len(levels) - 1)) for here in levels[:-1]
            ]
        ),
        "that is the noise: keep the result of each step, x = x + ...": lambda velocity, noise, _: (
            noise + 0 * velocity(noise, 1.0)
        ),
    },
)
def sample() -> Iterator[Case]:
    """Walks along a drifting velocity, one number at a time."""
    for levels in ([1.0, 0.7, 0.2, 0.0], [1.0, 0.75, 0.5, 0.25, 0.0], [1.0, 0.0]):
        noise = torch.randn(2, 1, 2, 3)
        numbers = []
        for number in noise.flatten().tolist():
            for place in range(1, len(levels)):
                level = levels[place - 1]
                number -= (level - levels[place]) * (number * (0.5 + level) - level)
            numbers.append(number)
        yield Case(
            f"the walk along the levels {levels}",
            (drifting, noise, levels),
            torch.tensor(numbers).view_as(noise),
        )


# -------------------------------------------------------------------------------------- 6.4 guidance


@exercise(
    "6.4",
    "equal to one number at a time, for guidance below one, at one, and above",
    {
        "the two answers are exchanged: it leads away from the prompt": lambda e, p, w: (
            p + w * (e - p)
        ),
        "off by one: that starts at the prompt's answer; start at the empty prompt's": (
            lambda e, p, w: p + w * (p - e)
        ),
        "that is an average, never past the prompt's answer": lambda e, p, w: (e + w * p) / (1 + w),
        "the difference alone: it is added to the empty prompt's answer": lambda e, p, w: (
            w * (p - e)
        ),
        "the prompt's answer is scaled: the difference of the two is": lambda e, p, w: e + w * p,
        "the empty prompt's answer plays no part": lambda e, p, w: w * p,
        "the sign of the difference: prompted minus empty": lambda e, p, w: e + w * (e - p),
        "kept between the two answers: more than 1 is meant to go beyond": lambda e, p, w: (
            e + min(w, 1) * (p - e)
        ),
        "below 1 the prompt's answer alone is given: the formula holds there too": (
            lambda e, p, w: p if w < 1 else e + w * (p - e)
        ),
    },
)
def guided_velocity() -> Iterator[Case]:
    """The point on the line through both answers, one number at a time."""
    for w in (3.0, 1.0, 7.0, 0.0, 0.5):
        e, p = torch.randn(2, 2, 3, 4, 4)
        pairs = zip(e.flatten().tolist(), p.flatten().tolist(), strict=True)
        numbers = [(1 - w) * empty + w * prompted for empty, prompted in pairs]
        yield Case(f"the velocity at guidance {w:g}", (e, p, w), torch.tensor(numbers).view_as(e))


# ------------------------------------------------------------------------------------------- 6.5 FID

FORM = "one plain number is wanted: .item() makes one of a tensor, .real of a complex number"
NEGATIVE = "rounding makes some eigenvalues a little negative: .clamp(min=0) before the root"


def root(matrix: Tensor) -> Tensor:
    """The symmetric root of a covariance."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def of_the_product(C: Tensor, D: Tensor) -> Tensor:
    """The trace of (C D)^(1/2)."""
    return torch.linalg.eigvalsh(root(C) @ D @ root(C)).clamp(min=0).sqrt().sum()


def distance(
    gap: Callable = lambda m: m @ m,
    covariance: Callable = lambda x: torch.cov(x.T),
    shared: Callable = of_the_product,
    total: Callable = lambda gap, C, D, shared: gap + C.trace() + D.trace() - 2 * shared,
    kind: torch.dtype = torch.float64,
) -> Callable:
    """FID with one thing changed."""

    def attempt(features, reference):
        x, y = features.to(kind), reference.to(kind)
        C, D = (covariance(each).reshape(x.shape[1], -1) for each in (x, y))
        return float(total(gap(x.mean(0) - y.mean(0)), C, D, shared(C, D)))

    return attempt


@exercise(
    "6.5",
    "by hand for the corners of rectangles; equal to an independent implementation for several, and with fewer "
    "pictures than features",
    {
        "the distance of the means is squared": distance(lambda m: m.norm()),
        "absolute differences of the means: they are squared": distance(lambda m: m.abs().sum()),
        "the means play no part: the squared distance of the two is missing": distance(
            lambda m: m.sum() * 0
        ),
        "only the means: the two covariances are missing": distance(
            total=lambda gap, C, D, shared: gap
        ),
        "the 2 before the root is missing": distance(
            total=lambda gap, C, D, shared: gap + C.trace() + D.trace() - shared
        ),
        "the root is added: it is taken away, so that equal sets are at distance 0": distance(
            total=lambda gap, C, D, shared: gap + C.trace() + D.trace() + 2 * shared
        ),
        "the root of a matrix is not the root of its entries": (
            distance(shared=lambda C, D: (C @ D).clamp(min=0).sqrt().trace()),
            distance(shared=lambda C, D: (C @ D).diagonal().abs().sqrt().sum()),
        ),
        "the root is missing: that is the trace of C D": distance(
            shared=lambda C, D: (C @ D).trace()
        ),
        "the root of the trace: take the trace of the root": distance(
            shared=lambda C, D: (C @ D).trace().sqrt()
        ),
        "C^(1/2) D^(1/2) is a root of C D only where C and D commute": distance(
            shared=lambda C, D: (root(C) @ root(D)).trace()
        ),
        "divided by N: torch.cov divides by N - 1": distance(
            covariance=lambda x: torch.cov(x.T, correction=0)
        ),
        "the mean is still in the covariances: subtract it first": distance(
            covariance=lambda x: x.T @ x / (len(x) - 1)
        ),
        "torch.cov wants the features as rows: turn the matrix round, torch.cov(x.T)": distance(
            covariance=torch.cov
        ),
        "the products were not divided by N - 1": distance(
            covariance=lambda x: torch.cov(x.T) * (len(x) - 1)
        ),
        "the squared distance of the covariances: that is another measure": distance(
            total=lambda gap, C, D, shared: gap + (C - D).square().sum()
        ),
        "float32 is too coarse: the root makes 0.0003 of a rounding error of 0.0000001; begin "
        "with .double()": distance(kind=torch.float32),
    },
)
def frechet() -> Iterator[Case]:
    """Corners of rectangles by hand, several features by singular values, and few pictures."""
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])  # no feature goes with the other
    x, y = corners * torch.tensor([2.0, 0.5]) + 3, corners.repeat(2, 1) * torch.tensor([0.7, 3.0])
    spreads = ((2.0, 4), (0.7, 8)), ((0.5, 4), (3.0, 8))  # half a side, pictures
    each = [[half * math.sqrt(n / (n - 1)) for half, n in pair] for pair in spreads]
    yield Case(
        "FID of two rectangles' corners",
        (x, y),
        math.fsum([3**2, 3**2] + [(one - other) ** 2 for one, other in each]),
        read=lambda got, *_: float(got),
        tolerance=1e-4,
        form=FORM,
        nan=NEGATIVE,
    )
    for pictures, others, width in ((50, 40, 4), (12, 9, 64)):
        mix, turn = torch.randn(2, width, width)
        x, y = torch.randn(pictures, width) @ mix + 5, torch.randn(others, width) @ turn + 4
        yield Case(
            f"FID of {pictures} and {others} pictures with {width} features",
            (x, y),
            frechet_distance(x, y),
            read=lambda got, *_: float(got),
            tolerance=1e-4,
            form=FORM,
            nan=NEGATIVE,
        )
