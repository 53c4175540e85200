"""Right answers to the exercises in other words than the solved lessons'.

Each is a function, or the solved answer with parts replaced: old -> new.
"""

import math
from itertools import chain

import numpy as np
import pandas as pd
import torch
from scipy import linalg, stats
from scipy.linalg import subspace_angles
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from serial_lora_course.checking.solved import solved


def misses_by_numpy(matrix):
    """From what is kept, by numpy."""
    kept = np.cumsum(np.linalg.svd(matrix.numpy(), compute_uv=False) ** 2)
    left = 1 - np.concatenate([[0], kept]) / kept[-1]
    return torch.from_numpy(np.sqrt(np.clip(left, 0, None)))


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


def pairs_in_another_basis(weights, A, B):
    """The same products, by way of another basis of the rank."""
    turn = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    turn = torch.block_diag(turn, torch.eye(len(A) - 2))
    return {p: (turn @ A, torch.linalg.solve(turn.T, (w @ B).T).T) for p, w in weights.items()}


def train_by_loader(clip, groups, shots, prompts, loss_of, steps, batch_size):
    """With a DataLoader, and the rates set by hand."""
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    started, losses = [group["lr"] for group in groups], []
    order = [i for _ in range(steps * batch_size) for i in torch.randperm(len(shots)).tolist()]
    loader = torch.utils.data.DataLoader(shots, batch_size, sampler=order[: steps * batch_size])
    clip.train()
    for step, (pictures, labels) in enumerate(loader):
        share = (1 + math.cos(math.pi * step / steps)) / 2
        for group, rate in zip(optimizer.param_groups, started, strict=True):
            group["lr"] = rate * share
        optimizer.zero_grad()
        loss = loss_of(clip, pictures, labels, prompts)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    clip.eval()
    return losses


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


def fid_by_scipy(features, reference):
    """By scipy's root of a matrix, with a little on the diagonals, as in the published scripts."""
    x, y = features.double(), reference.double()
    C, D = (torch.cov(each.T) + 1e-9 * torch.eye(each.shape[1]) for each in (x, y))
    shared = linalg.sqrtm((C @ D).numpy()).trace().real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + C.trace() + D.trace() - 2 * shared


def groups_by_lists(named, lr, ratio, weight_decay):
    """One comprehension a group."""
    learn = [(name.split(".")[-1], p) for name, p in named.items() if p.requires_grad]
    A = [p for kind, p in learn if kind == "lora_A"]
    B = [p for kind, p in learn if kind == "lora_B"]
    others = [p for kind, p in learn if kind not in ("lora_A", "lora_B")]
    found = [dict(params=A, lr=lr), dict(params=B, lr=ratio * lr), dict(params=others, lr=lr)]
    return [group | {"weight_decay": weight_decay} for group in found if group["params"]]


def interval_by_pandas(differences):
    """By pandas, as an array."""
    means = pd.DataFrame(differences).mean(axis=1)
    return np.array([means.mean(), stats.t.ppf(0.975, len(means) - 1) * means.sem()])


def front_by_numpy(costs, gains):
    """All pairs at once, positions as numpy's whole numbers."""
    costs, gains = np.array(costs), np.array(gains)
    no_dearer, no_worse = costs[:, None] <= costs, gains[:, None] >= gains
    other = (costs[:, None] < costs) | (gains[:, None] > gains)
    return set(np.flatnonzero(~(no_dearer & no_worse & other).any(0)))


def rank_by_torch(before, after):
    """By torch.linalg.matrix_rank with a limit of one's own."""
    limit = max(after.shape) * torch.finfo(torch.float32).eps * torch.linalg.svdvals(after)[0]
    return torch.linalg.matrix_rank(after.double() - before.double(), atol=limit, rtol=0.0).item()


def trained_by_hand(model):
    """All in bfloat16, and what is trained put back."""
    kept = {name: p.detach().float() for name, p in model.named_parameters() if p.requires_grad}
    model.to(torch.bfloat16)
    for name, values in kept.items():
        model.get_parameter(name).data = values
    return model


def share_by_schedulers(step, steps):
    """By two of torch's schedulers."""
    warm_up = max(1, steps // 10)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    rise = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: (done + 1) / warm_up)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warm_up)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [warm_up])
    for _ in range(step):
        optimizer.step()
        both.step()
    return optimizer.param_groups[0]["lr"]


ANSWERS = {
    "0.2": [lambda model: model.requires_grad_(False).eval()],
    "1.1": [misses_by_numpy],
    "1.2": [LoRAAsLinear],
    "1.3": [pairs_in_another_basis],
    "2.1": [lambda shapes, rank: int(rank * np.sum(shapes))],
    "3.1": [
        {
            "self.scale = scale": "self.factor = scale",
            "torch.randn(rank, width) /": "nn.init.kaiming_uniform_(torch.empty(rank, width)) /",
            "self.scale * (down @ self.lora_B.T)": "F.linear(x, self.lora_B @ self.lora_A) * self.factor",
        }
    ],
    "3.2": [
        {
            "block.attention(tokens)": "block.attend(block.q(tokens), block.k(tokens), block.v(tokens))"
        }
    ],
    "3.4": [
        {  # the hook makes zero what attention adds, on its way out
            "silent.block.out.weight.zero_()": (
                "silent.block.out.register_forward_hook(lambda layer, given, output: output * 0)"
            ),
            "silent.block.out.bias.zero_()": "pass",
            "fill_(0.1)": "copy_(torch.randn_like(parameter))",
            "torch.allclose(silent(x), x)": "bool((silent(x) - x).abs().max() < 1e-6)",
        },
    ],
    "3.5": [
        {  # pairs that the model holds in one list, each bound to its hook
            "model.requires_grad_(False)": (
                "[p.requires_grad_(False) for p in model.parameters()]\n    "
                "model.pairs = nn.ModuleList(adapter(m.embed_dim, rank=rank) for m in layers)"
            ),
            "for layer in layers:": "for layer, pair in zip(layers, model.pairs):",
            "layer.serial_lora = adapter(layer.embed_dim, rank)": "",
            "(adapt_tokens)": "(lambda _, args, pair=pair: (pair(args[0]),) * 3)",
            "return [layer.serial_lora for layer in layers]": "return model.pairs",
        },
        {  # a hook that sees keywords, and adapts each of q, k and v
            "(layer, args)": "(layer, args, kwargs)",
            "tokens, tokens, tokens, *args[3:]": "tuple(map(layer.serial_lora, args)), kwargs",
            "(adapt_tokens)": "(adapt_tokens, with_kwargs=True)",
        },
        {  # no hook: the layer's own forward, behind the pair
            "def adapt_tokens(layer, args)": "def forward(q, k, v, layer, before, **named)",
            "tokens = layer.serial_lora(args[0])": "tokens = layer.serial_lora(q)",
            "return tokens, tokens, tokens, *args[3:]": "return before(*[tokens] * 3, **named)",
            "layer.register_forward_pre_hook(adapt_tokens)": (
                "from functools import partial\n        "
                "layer.forward = partial(forward, layer=layer, before=layer.forward)"
            ),
        },
    ],
    "4.2": [
        lambda image, classes, labels: np.mean(
            np.argmax(image.numpy() @ classes.numpy().T, axis=1) == labels.numpy()
        ),
    ],
    "4.3": [
        {
            "pictures, normalize=True": "pictures",
            "* image_features": "* F.normalize(image_features)",
            "F.cross_entropy(scores, labels)": (
                "-scores.log_softmax(-1).gather(1, labels[:, None]).mean()"
            ),
        },
    ],
    "4.4": [
        train_by_loader,
        {
            "CosineAnnealingLR(optimizer, steps)": (
                "LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps))"
            ),
            "optimizer.zero_grad()": "pass",
            "schedule.step()": "schedule.step(), clip.zero_grad()",
            "clip.eval()": "clip.train(False)",
        },
    ],
    "5.2": [padded_at_the_border],
    "5.4": [
        {
            "losses.append(loss_of(logits, each.truth))": (
                "losses.append(loss_of(logits, each.truth) / len(batch)), "
                "losses[-1].backward(retain_graph=True)"
            ),
            "torch.stack(losses).mean()": "sum(losses)",
            "optimizer.zero_grad()": "pass",
            "loss.backward()": "pass",
            "optimizer.step()": "optimizer.step(), model.zero_grad()",
        },
    ],
    "6.3": [{"points = noise": "points = noise.clone()", "points = points +": "points +="}],
    "6.4": [torch.lerp],
    "6.5": [fid_by_scipy],
    "7.1": [groups_by_lists],
    "8.1": [interval_by_pandas],
    "8.2": [
        lambda mean, half, margin: (
            "fails" if mean + half + margin < 0 else "open" if mean + margin <= half else "holds"
        )
    ],
    "8.4": [
        lambda sweep: next(
            rank
            for rank in sorted(sweep)
            if np.mean(sweep[rank])
            >= max((np.mean(runs), np.mean(runs) - stats.sem(runs)) for runs in sweep.values())[1]
        )
    ],
    "9.2": [
        lambda differences, margin, share: (
            "holds" if np.mean(np.array(differences) + margin > 0) >= share else "fails"
        )
    ],
    "9.3": [front_by_numpy, lambda *given: frozenset(solved("9.3")(*given))],
    "10.1": [rank_by_torch],
    "10.2": [
        lambda values: torch.distributions.Categorical(values).entropy().exp().item(),
    ],
    "10.3": [
        lambda one, other: torch.from_numpy(np.rad2deg(subspace_angles(one, other))[::-1].copy()),
    ],
    "11.1": [
        {  # the root of each weight on both factors, and its sign on one
            "A for A, _ in pairs": "abs(w) ** 0.5 * A for w, (A, _) in zip(weights, pairs)",
            "w * B": "w / abs(w) ** 0.5 * B",
        }
    ],
    "11.2": [{"A2 + A2 @ B1 @ A1": "A2", "[B1, B2]": "[B1 + B2 @ A2 @ B1, B2]"}],
    "11.3": [
        lambda x, A, B, which: x.baddbmm(torch.bmm(x, A[which].mT), B[which].mT),
    ],
    "12.2": [
        {
            "(merged - adapted).abs().max() <= allowed": (
                "torch.allclose(merged, adapted, rtol=0, atol=float(allowed))"
            ),
            "(adapted - base).abs().max() > allowed": (
                "not torch.allclose(base, adapted, rtol=0, atol=float(allowed))"
            ),
        }
    ],
    "12.3": [
        {  # a loader of positions, Adam, a norm that learns, gradients cleared first
            "for _ in range(steps):": (
                "loader = torch.utils.data.DataLoader(train, 32, shuffle=True)\n    "
                "batches = (batch for _ in range(steps) for batch in loader)\n    "
                "for batch, _ in zip(batches, range(steps)):"
            ),
            "batch = torch.tensor(train)[torch.randperm(len(train))[:32]]": "optimizer.zero_grad()",
            "        optimizer.zero_grad()\n": "",
            "AdamW": "Adam",
            ", elementwise_affine=False": "",
        },
        {  # a split of its own, batches from Python's random numbers, all of the model ejected
            'yours("12.1")(objects, labels.tolist(), 0.25)': (
                "[[i for i, name in enumerate(objects) if (int(name[-2:]) % 4 == 0) == held]"
                " for held in (False, True)]"
            ),
            "optimizer = torch": "import random\n    optimizer = torch",
            "torch.tensor(train)[torch.randperm(len(train))[:32]]": "random.sample(train, 20)",
            "eject(adapted": "eject(model",
        },
    ],
    "13.1": [
        {
            "learns = [": "from serial_lora import adapter_parameters\n    learns = [*adapter_parameters(model)] or ["
        }
    ],
    "13.2": [
        {  # one checkpoint around all
            "for block in blocks:\n    ": "for block in [nn.Sequential(*blocks)]:\n    ",
        },
        {  # the other kind, on tokens that need a gradient
            "for block in blocks:": "tokens = tokens.clone().requires_grad_()\n    for block in blocks:",
            "False": "True",
        },
    ],
    "13.3": [lambda picture: pil_to_tensor(picture.convert("RGB"))],
    "13.4": [trained_by_hand],
    "13.5": [share_by_schedulers],
}
RIGHT = {
    number: [
        answer if callable(answer) else solved(number, tuple(chain(*answer.items())))
        for answer in answers
    ]
    for number, answers in ANSWERS.items()
}
