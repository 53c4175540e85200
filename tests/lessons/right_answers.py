"""Right answers to the exercises in other words than the solved lessons'."""

import copy
import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pandas as pd
import torch
from scipy import linalg, stats
from scipy.linalg import subspace_angles
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from serial_lora import SerialLoRAConfig, adapter_parameters, eject, inject
from serial_lora_course.checking.solved import solved


def misses_by_numpy(matrix):
    """From what is kept, by numpy."""
    kept = np.cumsum(np.linalg.svd(matrix.numpy(), compute_uv=False) ** 2)
    left = 1 - np.concatenate([[0], kept]) / kept[-1]
    return torch.from_numpy(np.sqrt(np.clip(left, 0, None)))


def misses_from_behind(matrix):
    """A running sum from the last layer to the first."""
    squares = torch.linalg.svdvals(matrix) ** 2
    tails = torch.flip(torch.cumsum(torch.flip(squares, (0,)), 0), (0,))
    return nn.functional.pad(tails / tails[0], (0, 1)) ** 0.5


class LoRAAsLinear(nn.Linear):
    """Takes the base's tensors over."""

    def __init__(self, base, rank, alpha):
        super().__init__(base.in_features, base.out_features, base.bias is not None)
        self.weight, self.bias, self.factor = base.weight, base.bias, alpha / rank
        self.requires_grad_(False)
        self.lora_A = nn.Parameter(nn.init.uniform_(torch.empty(rank, base.in_features), -0.1, 0.1))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))

    def merged_weight(self):
        return torch.addmm(self.weight, self.lora_B, self.lora_A, alpha=self.factor)

    def forward(self, x):
        return nn.functional.linear(x, self.merged_weight(), self.bias)


class LoRAByWeight(nn.Module):
    """Merges at every call."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        for parameter in base.parameters():
            parameter.requires_grad = False
        self.linear, self.alpha = base, alpha
        self.lora_A = nn.Parameter(torch.randn(rank, base.weight.shape[1]) * 0.01)
        self.lora_B = nn.Parameter(torch.zeros(base.weight.shape[0], rank))

    def merged_weight(self):
        change = torch.einsum("or,ri->oi", self.lora_B, self.lora_A)
        return self.linear.weight + change.mul(self.alpha).div(len(self.lora_A))

    def forward(self, x):
        return nn.functional.linear(x, self.merged_weight(), self.linear.bias)


def pairs_in_another_basis(weights, A, B):
    """The same products, by way of another basis of the rank."""
    turn = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    turn = torch.block_diag(turn, torch.eye(len(A) - 2))
    return {p: (turn @ A, torch.linalg.solve(turn.T, (w @ B).T).T) for p, w in weights.items()}


def gradients_by_autograd(weights, gradients, lora_A, lora_B, scale):
    """Differentiates the sum of gradient times change."""
    A, B = lora_A.clone().requires_grad_(), lora_B.clone().requires_grad_()
    change = sum((gradients[p] * (scale * weights[p] @ B @ A)).sum() for p in weights)
    return torch.autograd.grad(change, [A, B])


def gradients_stacked(weights, gradients, lora_A, lora_B, scale):
    """With all parts below one another."""
    W, G = (torch.cat([each[part] for part in weights]) for each in (weights, gradients))
    return [scale * (W @ lora_B).T @ G, scale * (W.T @ (G @ lora_A.T))]


def rank_by_torch(before, after):
    """By torch.linalg.matrix_rank with a limit of one's own."""
    limit = max(after.shape) * torch.finfo(torch.float32).eps * torch.linalg.svdvals(after)[0]
    return torch.linalg.matrix_rank(after.double() - before.double(), atol=limit, rtol=0.0).item()


def interval_by_pandas(differences):
    """By pandas, as an array."""
    means = pd.DataFrame(differences).mean(axis=1)
    return np.array([means.mean(), stats.t.ppf(0.975, len(means) - 1) * means.sem()])


def interval_by_scipy(differences):
    """Between the two ends that scipy gives."""
    found = stats.ttest_1samp(differences.mean(1), 0).confidence_interval(0.95)
    return (found.low + found.high) / 2, (found.high - found.low) / 2


def holm_array(ps):
    """By numpy, as an array."""
    order = np.argsort(ps)
    values = np.array(ps)[order] * np.arange(len(ps), 0, -1)
    found = np.empty(len(ps))
    found[order] = np.minimum(np.maximum.accumulate(values), 1)
    return found


def front_by_numpy(costs, gains):
    """All pairs at once, positions as numpy's whole numbers."""
    costs, gains = np.array(costs), np.array(gains)
    no_dearer, no_worse = costs[:, None] <= costs, gains[:, None] >= gains
    other = (costs[:, None] < costs) | (gains[:, None] > gains)
    return set(np.flatnonzero(~(no_dearer & no_worse & other).any(0)))


def each_adapter_at_once(x, A, B, which):
    """All samples of an adapter together."""
    adapted = torch.empty_like(x)
    for k in which.unique():
        mine = which == k
        adapted[mine] = x[mine] + nn.functional.linear(nn.functional.linear(x[mine], A[k]), B[k])
    return adapted


def proof_by_allclose(base, adapted, merged, tolerance):
    """By torch.allclose with the absolute tolerance alone."""
    limits = {"rtol": 0, "atol": tolerance * float(adapted.abs().amax())}
    return torch.allclose(merged, adapted, **limits) and not torch.allclose(base, adapted, **limits)


def sum_by_columns(pairs, weights):
    """One column and one row after another."""
    terms = [
        (A[k], w * B[:, k]) for w, (A, B) in zip(weights, pairs, strict=True) for k in range(len(A))
    ]
    rows, columns = zip(*terms, strict=True)
    return torch.stack(rows), torch.stack(columns, dim=1)


def sum_with_roots(pairs, weights):
    """The root of each weight on both factors, and its sign on one."""
    A = torch.vstack([abs(w) ** 0.5 * A for w, (A, _) in zip(weights, pairs, strict=True)])
    signed = [np.sign(w) * abs(w) ** 0.5 for w in weights]
    return A, torch.hstack([float(w) * B for w, (_, B) in zip(signed, pairs, strict=True)])


def way_by_merge_and_sgd(vision, pictures, labels, objects, steps, rank=8, lr=2e-3):
    names = [
        sorted({o for o, of in zip(objects, labels, strict=True) if of == c}) for c in range(3)
    ]
    test = [i for i, name in enumerate(objects) if name in {n for own in names for n in own[:2]}]
    train = [i for i in range(len(objects)) if i not in test]
    tower = copy.deepcopy(vision)
    inject(tower, SerialLoRAConfig(rank=rank))
    size = tower(pictures[:2]).shape[-1]
    whole = nn.Sequential(tower, nn.LayerNorm(size), nn.Linear(size, len(names)))
    learning = [*adapter_parameters(tower), *whole[1:].parameters()]
    optimizer = torch.optim.Adam(learning, lr=lr)
    loader = DataLoader(TensorDataset(pictures[train], labels[train]), 32, shuffle=True)
    batches = (batch for _ in range(steps) for batch in loader)
    for x, y in itertools.islice(batches, steps):
        optimizer.zero_grad()
        nn.CrossEntropyLoss()(whole(x), y).backward()
        optimizer.step()
    with torch.inference_mode():
        base, trained = vision(pictures[test]), tower(pictures[test])
    eject(tower, keep_merged=True)
    close = torch.allclose(tower(pictures[test]), trained, atol=1e-4)
    return whole, test, close and not torch.allclose(base, trained, atol=1e-4)


def way_by_python_random(vision, pictures, labels, objects, steps, rank=8, lr=2e-3):
    """Batches from Python's random numbers; pictures one by one in the proof."""
    held = {name for c in range(3) for name in sorted({objects[i] for i in where(labels == c)})[:2]}
    test = [i for i, name in enumerate(objects) if name in held]
    train = [i for i, name in enumerate(objects) if name not in held]
    tower = inject(copy.deepcopy(vision), SerialLoRAConfig(rank=rank))
    width = vision(pictures[:1]).shape[-1]
    whole = nn.Sequential(tower, nn.LayerNorm(width), nn.Linear(width, 3))
    optimizer = torch.optim.AdamW([p for p in whole.parameters() if p.requires_grad], lr=lr)
    for _ in range(steps):
        batch = random.sample(train, 20)
        optimizer.zero_grad()
        nn.functional.nll_loss(whole(pictures[batch]).log_softmax(-1), labels[batch]).backward()
        optimizer.step()

    def outputs(model):
        return torch.cat([model(pictures[i : i + 1]).detach() for i in test])

    base, adapted = outputs(vision), outputs(tower)
    eject(whole, keep_merged=True)
    limit = 1e-4 * adapted.abs().max()
    close = (outputs(tower) - adapted).abs().max() <= limit
    return whole, test, bool(close and (base - adapted).abs().max() > limit)


def where(mask):
    """The positions at which a mask is True."""
    return mask.nonzero().flatten().tolist()


RIGHT = {
    "0.1": [lambda x, A, B: (B @ (A @ x.unsqueeze(-1))).squeeze(-1)],
    "0.2": [
        lambda model: model.requires_grad_(False),
        lambda model: model.requires_grad_(False).eval(),
    ],
    "1.1": [misses_by_numpy, misses_from_behind],
    "1.2": [LoRAByWeight, LoRAAsLinear],
    "1.3": [pairs_in_another_basis],
    "1.4": [gradients_by_autograd, gradients_stacked],
    "2.1": [
        lambda shapes, rank: rank * sum(map(sum, shapes)),
        lambda shapes, rank: int(rank * np.sum(shapes)),
    ],
    "2.2": [
        lambda shapes, width, rank: int(Fraction(2 * width * rank, sum(map(sum, shapes)))),
        lambda shapes, width, rank: math.floor(2 * width * rank / np.sum(shapes)),
    ],
    "10.1": [rank_by_torch],
    "10.2": [
        lambda values: torch.special.entr(values / values.sum()).sum().exp().item(),
        lambda values: torch.distributions.Categorical(values).entropy().exp().item(),
    ],
    "10.3": [
        lambda one, other: torch.from_numpy(np.rad2deg(subspace_angles(one, other))[::-1].copy()),
    ],
    "8.1": [interval_by_pandas, interval_by_scipy],
    "8.2": [
        lambda mean, half, margin: (
            "fails" if mean + half + margin < 0 else "open" if mean + margin <= half else "holds"
        )
    ],
    "8.3": [holm_array],
    "8.4": [
        lambda sweep: next(
            rank
            for rank in sorted(sweep)
            if np.mean(sweep[rank])
            >= max((np.mean(runs), np.mean(runs) - stats.sem(runs)) for runs in sweep.values())[1]
        )
    ],
    "11.1": [sum_by_columns, sum_with_roots],
    "11.2": [
        lambda first, second: (
            torch.cat([first[0], second[0]]),
            torch.cat([first[1] + second[1] @ (second[0] @ first[1]), second[1]], dim=1),
        )
    ],
    "9.1": [
        lambda down, up, scale: (
            scale * down,
            torch.einsum("gdh,gk->gdkh", up, torch.eye(len(up))).flatten(2).flatten(0, 1),
        )
    ],
    "9.2": [
        lambda differences, margin, share: (
            "holds" if np.mean(np.array(differences) + margin > 0) >= share else "fails"
        )
    ],
    "9.3": [front_by_numpy, lambda *given: frozenset(solved("9.3")(*given))],
    "11.3": [
        lambda x, A, B, which: x + torch.einsum("bni,bri,bor->bno", x, A[which], B[which]),
        lambda x, A, B, which: torch.stack(
            [one + nn.functional.linear(one, B[k] @ A[k]) for one, k in zip(x, which, strict=True)]
        ),
        each_adapter_at_once,
        lambda x, A, B, which: x.baddbmm(torch.bmm(x, A[which].mT), B[which].mT),
    ],
    "12.2": [proof_by_allclose],
    "12.3": [way_by_merge_and_sgd, way_by_python_random],
}


def residual_in_place_of_a_copy(adapted, x):
    other = copy.deepcopy(adapted)
    for name, parameter in other.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
        if "block.out" in name:
            parameter.data.zero_()
    return torch.allclose(other(x), x)


def residual_by_a_hook(adapted, x):
    """What attention adds is made zero on its way out."""
    other = copy.deepcopy(adapted)
    other.block.out.register_forward_hook(lambda layer, given, output: output * 0)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name.endswith("lora_B"):
                parameter.copy_(torch.ones_like(parameter))
        return bool((other(x) - x).abs().max() < 1e-6)


def inject_by_closures(model, adapter, rank):
    """The pair bound to its hook, and kept by the module around the attention; freezing by hand."""
    if any("lora_A" in name for name in model.state_dict()):
        raise ValueError("twice")
    for parameter in model.parameters():
        parameter.requires_grad = False
    pairs = nn.ModuleList()
    for block in list(model.modules()):
        for layer in list(block.children()):
            if isinstance(layer, nn.MultiheadAttention):
                pair = adapter(width=layer.embed_dim, rank=rank)
                block.add_module("pair", pair)
                layer.register_forward_pre_hook(lambda _, given, pair=pair: (pair(given[0]),) * 3)
                pairs.append(pair)
    if not len(pairs):
        raise ValueError("none")
    return pairs


def inject_with_keywords(model, adapter, rank):
    """A hook that sees keywords too, and pairs that the model holds in one list."""
    found = [layer for layer in model.modules() if type(layer) is nn.MultiheadAttention]
    if not found or hasattr(model, "pairs") or sum("lora" in n for n in model.state_dict()):
        raise ValueError("none, or twice")
    model.requires_grad_(False)
    model.pairs = nn.ModuleList(adapter(layer.out_proj.in_features, rank) for layer in found)
    for layer, pair in zip(found, model.pairs, strict=True):

        def hook(_, args, kwargs, pair=pair):
            return (*map(pair, args[:3]), *args[3:]), kwargs

        layer.register_forward_pre_hook(hook, with_kwargs=True)
    return list(model.pairs)


def inject_around_forward(model, adapter, rank):
    """No hook: the layer's own forward, behind the pair."""
    layers = [m for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    if not layers or any(hasattr(layer, "pair") for layer in layers):
        raise ValueError("none, or twice")
    model.requires_grad_(False)
    for layer in layers:
        layer.pair = adapter(layer.embed_dim, rank)

        def forward(q, k, v, layer=layer, before=layer.forward, **named):
            tokens = layer.pair(q)
            return before(tokens, tokens, tokens, **named)

        layer.forward = forward
    return [layer.pair for layer in layers]


class TwoLines(nn.Module):
    def __init__(self, width, rank, scale=1.0):
        super().__init__()
        self.lora_A = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, width)))
        self.lora_B = nn.Parameter(torch.zeros(width, rank))
        self.factor = scale

    def forward(self, x):
        return x + nn.functional.linear(x, self.lora_B @ self.lora_A) * self.factor


RIGHT |= {
    "3.1": [TwoLines],
    "3.2": [lambda block, adapter, x: block.attention(adapter(block.norm(x))) + x],
    "3.3": [lambda W, A, B, s: W + s * (W @ B) @ A],
    "3.4": [residual_in_place_of_a_copy, residual_by_a_hook],
    "3.5": [inject_by_closures, inject_with_keywords, inject_around_forward],
}


def train_by_loader(clip, groups, shots, prompts, loss_of, steps, batch_size):
    """With a DataLoader, and the rates set by hand."""
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    started, losses = [group["lr"] for group in groups], []
    loader = torch.utils.data.DataLoader(shots, batch_size, shuffle=True)
    clip.train()
    while len(losses) < steps:
        for pictures, labels in loader:
            if len(losses) == steps:
                break
            share = (1 + math.cos(math.pi * len(losses) / steps)) / 2
            for group, rate in zip(optimizer.param_groups, started, strict=True):
                group["lr"] = rate * share
            optimizer.zero_grad()
            loss = loss_of(clip, pictures, labels, prompts)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    clip.eval()
    return losses


RIGHT |= {
    "4.1": [
        lambda image, text, s: (
            torch.cosine_similarity(image[:, None], text[None], dim=-1) * s.exp()
        ),
    ],
    "4.2": [
        lambda image, classes, labels: np.mean(
            np.argmax(image.numpy() @ classes.numpy().T, axis=1) == labels.numpy()
        ),
    ],
    "4.3": [
        solved(
            "4.3",
            (
                "pictures, normalize=True",
                "pictures",
                "* image_features",
                "* F.normalize(image_features)",
                "F.cross_entropy(scores, labels)",
                "-scores.log_softmax(-1).gather(1, labels[:, None]).mean()",
            ),
        )
    ],
    "4.4": [
        train_by_loader,
        solved(
            "4.4",
            (
                "CosineAnnealingLR(optimizer, steps)",
                "LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps))",
                "optimizer.zero_grad()",
                "pass",
                "schedule.step()",
                "schedule.step(), clip.zero_grad()",
                "clip.eval()",
                "clip.train(False)",
            ),
        ),
    ],
}


def groups_by_lists(named, lr, ratio, weight_decay):
    """One comprehension a group."""
    learn = [(name.split(".")[-1], p) for name, p in named.items() if p.requires_grad]
    A = [p for kind, p in learn if kind == "lora_A"]
    B = [p for kind, p in learn if kind == "lora_B"]
    others = [p for kind, p in learn if kind not in ("lora_A", "lora_B")]
    found = [dict(params=A, lr=lr), dict(params=B, lr=ratio * lr), dict(params=others, lr=lr)]
    return [group | {"weight_decay": weight_decay} for group in found if group["params"]]


def step_by_the_means(gradient, lr, eps=1e-8):
    """With both means written out."""
    m, v = 0.1 * gradient / (1 - 0.9), 0.001 * gradient**2 / (1 - 0.999)
    return -lr * m / (v.sqrt() + eps)


RIGHT |= {
    "7.1": [groups_by_lists],
    "7.2": [
        lambda A, B, a, b: [torch.einsum("or,ri->oi", *pair) for pair in ((b, A), (B, a), (b, a))]
    ],
    "7.3": [step_by_the_means],
}


def padded_at_the_border(block, adapter, x):
    """Pad, cut into windows, join."""
    tokens, side = adapter(block.norm1(x)), block.window_size
    if not side:
        return x + block.attn(tokens)
    height, width = x.shape[1:3]
    tokens = nn.functional.pad(tokens, (0, 0, 0, -width % side, 0, -height % side))
    rows = [
        torch.cat([block.attn(cut) for cut in strip.split(side, dim=2)], dim=2)
        for strip in tokens.split(side, dim=1)
    ]
    return x + torch.cat(rows, dim=1)[:, :height, :width]


RIGHT |= {
    "5.2": [padded_at_the_border],
    "5.4": [
        solved(
            "5.4",
            (
                "losses.append(loss_of(logits, each.truth))",
                "losses.append(loss_of(logits, each.truth) / len(batch)), "
                "losses[-1].backward(retain_graph=True)",
                "torch.stack(losses).mean()",
                "sum(losses)",
                "optimizer.zero_grad()",
                "pass",
                "loss.backward()",
                "pass",
                "optimizer.step()",
                "optimizer.step(), model.zero_grad()",
            ),
        )
    ],
}


def fid_by_scipy(features, reference):
    """By scipy's root of a matrix, with a little on the diagonals, as in the published scripts."""
    x, y = features.double(), reference.double()
    C, D = (torch.cov(each.T) + 1e-9 * torch.eye(each.shape[1]) for each in (x, y))
    shared = linalg.sqrtm((C @ D).numpy()).trace().real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + C.trace() + D.trace() - 2 * shared


RIGHT |= {
    "6.1": [lambda x, n, s: (torch.lerp(x, n, s[:, None, None, None]), n.sub(x))],
    "6.2": [
        lambda velocity, x, n, s: nn.functional.mse_loss(
            velocity(torch.lerp(x, n, s[:, None, None, None]), s), n - x
        )
    ],
    "6.3": [
        solved(
            "6.3", ("points = noise", "points = noise.clone()", "points = points +", "points +=")
        )
    ],
    "6.4": [torch.lerp],
    "6.5": [
        fid_by_scipy,
        solved(
            "6.5",
            (
                "eigvalsh(root @ D @ root).clamp(min=0).sqrt()",
                "eigvals(C @ D).sqrt().real",
                "(gap @ gap + C.trace() + D.trace() - 2 * shared).item()",
                "(gap @ gap + C.trace() + D.trace() - 2 * shared).numpy()",
            ),
        ),
    ],
}
