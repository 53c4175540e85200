"""Changes of a drawing that leave its meaning alone, on whole batches of RGBA tensors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DARK = 0.45  # mean brightness of paper below which ink must be bright


def augment(pictures: Tensor, mirror: Tensor, generator: torch.Generator) -> Tensor:
    """Drawings (B, 4, size, size) in [0, 1] to training pictures (B, 3, size, size) in [0, 1].

    Moved, turned and scaled; sometimes re-inked, outlined or reduced to outlines; laid on paper of
    some colour; sometimes in uneven light, grey, blurred, grainy or with a piece missing.
    ``mirror`` (B,) marks the drawings that may be flipped: an arrow or a letter may not.
    """
    pictures = move(pictures, mirror, generator)
    colours, alpha = pictures[:, :3], pictures[:, 3:]
    paper = papers(len(pictures), pictures.shape[-1], generator)
    dark = paper.mean((1, 2, 3), keepdim=True) < DARK
    colours = shift_colours(colours, alpha, dark, generator)
    outlines = edges(colours + (1 - alpha), alpha)

    only_outlines = chosen(len(pictures), 0.12, generator)
    with_outlines = chosen(len(pictures), 0.25, generator)
    colours = torch.where(only_outlines, torch.zeros_like(colours), colours)
    alpha = torch.where(only_outlines, outlines, alpha)
    sheet = colours + (1 - alpha) * paper
    sheet = torch.where(with_outlines, sheet * (1 - outlines), sheet)

    grey = sheet.mean(1, keepdim=True).expand_as(sheet)
    sheet = torch.where(chosen(len(sheet), 0.15, generator), grey, sheet)
    blurred = F.avg_pool2d(sheet, 3, stride=1, padding=1)
    sheet = torch.where(chosen(len(sheet), 0.1, generator), blurred, sheet)
    light = 1 + 0.5 * (clouds(len(sheet), sheet.shape[-1], generator) - 0.5)
    sheet = torch.where(chosen(len(sheet), 0.3, generator), sheet * light, sheet)
    grain = 0.04 * torch.randn(sheet.shape, generator=generator)
    sheet = torch.where(chosen(len(sheet), 0.15, generator), sheet + grain, sheet)
    return erase(sheet, paper, generator).clamp(0, 1)


def chosen(count: int, probability: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=generator) < probability).view(-1, 1, 1, 1)


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def move(pictures: Tensor, mirror: Tensor, generator: torch.Generator) -> Tensor:
    """A random rotation, scale, stretch, shift and flip of premultiplied drawings."""
    count = len(pictures)
    angle = uniform(count, -20, 20, generator) * math.pi / 180
    size = uniform(count, 0.7, 1.08, generator)
    stretch = uniform(count, 0.85, 1.18, generator).sqrt()
    flip = torch.where(mirror & (torch.rand(count, generator=generator) < 0.5), -1.0, 1.0)
    shift = torch.stack([uniform(count, -0.12, 0.12, generator) for _ in range(2)], 1)
    cos, sin = angle.cos() / size, angle.sin() / size
    rows = torch.stack(
        [cos * stretch * flip, -sin / stretch, sin * stretch * flip, cos / stretch], 1
    )
    matrix = torch.cat([rows.view(count, 2, 2), shift.view(count, 2, 1)], 2)
    grid = F.affine_grid(matrix, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def shift_colours(
    colours: Tensor, alpha: Tensor, dark: Tensor, generator: torch.Generator
) -> Tensor:
    """Mix the channels a little; give drawings in one black ink another, a bright one on dark paper."""
    count = len(colours)
    mix = torch.eye(3) + 0.2 * torch.randn(count, 3, 3, generator=generator)
    mix = mix / mix.sum(2, keepdim=True)
    mixed = torch.einsum("nij,njhw->nihw", mix, colours).clamp(0, 1).minimum(alpha)
    colours = torch.where(chosen(count, 0.5, generator), mixed, colours)
    one_ink = colours.amax((1, 2, 3), keepdim=True) < 0.1
    ink = 0.6 * torch.rand(count, 3, 1, 1, generator=generator)
    ink = torch.where(dark, 1 - ink, ink)
    return torch.where(one_ink & (dark | chosen(count, 0.4, generator)), ink * alpha, colours)


def papers(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Paper (count, 3, size, size): half of it white, some light, some of any colour, some cloudy."""
    light = uniform(count * 3, 0.7, 1.0, generator).view(count, 3, 1, 1)
    coloured, other = torch.rand(2, count, 3, 1, 1, generator=generator)
    cloudy = coloured.lerp(other, clouds(count, size, generator))
    paper = torch.where(chosen(count, 0.5, generator), cloudy, coloured.expand_as(cloudy))
    paper = torch.where(chosen(count, 0.5, generator), light, paper)
    return torch.where(chosen(count, 0.5, generator), torch.ones_like(paper), paper)


def clouds(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Smooth noise (count, 1, size, size) between 0 and 1."""
    coarse = torch.rand(count, 1, 4, 4, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)


def edges(sheet: Tensor, alpha: Tensor) -> Tensor:
    """Where colour or coverage changes, as ink coverage (B, 1, size, size)."""
    layers = torch.cat([sheet, alpha], 1)
    spread = F.max_pool2d(layers, 3, 1, 1) + F.max_pool2d(-layers, 3, 1, 1)
    return ((spread.amax(1, keepdim=True) - 0.15) * 3).clamp(0, 1)


def erase(sheet: Tensor, paper: Tensor, generator: torch.Generator) -> Tensor:
    """Cover a random square of up to a third of the width with paper, in one picture of five."""
    count, _, size, _ = sheet.shape
    span = torch.arange(size).view(1, -1)
    low = torch.randint(0, size, (count, 2), generator=generator)
    high = low + torch.randint(size // 8, size // 3, (count, 1), generator=generator)
    rows, columns = ((span >= low[:, k : k + 1]) & (span < high[:, :1]) for k in range(2))
    hole = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
    return torch.where(hole & chosen(count, 0.2, generator), paper, sheet)
