"""Right answers to the exercises in other words than the solved lessons'.

Each is a function, or the solved answer with parts replaced: old -> new.
"""

import copy
from itertools import chain

import numpy as np
import pandas as pd
import torch
from scipy import stats
from scipy.linalg import subspace_angles
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from serial_lora import SerialLoRAConfig, inject
from serial_lora_course.checking.solved import solved
from serial_lora_course.lessons.l13_not_learning import posted


def keep_by_numpy(update, chosen):
    """Part by part, term by term, by numpy."""
    parts = []
    for part in update.chunk(3):
        U, S, Vh = np.linalg.svd(part.numpy())
        parts.append(sum(torch.from_numpy(S[i] * np.outer(U[:, i], Vh[i])) for i in chosen))
    return torch.cat(parts)


def stretched_by_columns(W, change):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    new = change(S)
    terms = [new[i] * torch.outer(U[:, i], Vh[i]) for i in range(len(S))]
    return torch.stack(terms).sum(0) * (S.square().sum() / new.square().sum()).sqrt()


def imitate_by_projecting(W, wanted, rank):
    """By the pseudoinverse, and in 3d dimensions all the time."""
    U, S, Vh = torch.linalg.svd(W @ torch.linalg.pinv(W) @ wanted, full_matrices=False)
    return U[:, :rank] @ torch.diag(S[:rank]) @ Vh[:rank]


def tokens_by_columns(x, A, B, scale):
    """As papers write it, with tokens as columns."""
    return x + (scale * (B @ (A @ x.mT))).mT


def without_by_hooks(pairs, ask):
    """Each pair gives back what came in."""
    hooks = [pair.register_forward_hook(lambda _, args, out: args[0]) for pair in pairs]
    said = ask()
    for hook in hooks:
        hook.remove()
    return said


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


def stack_as_sequences(pairs):
    """The rows of A, and those of B's transpose, padded as sentences are."""
    rows, columns = ([pair[0] for pair in pairs], [pair[1].T for pair in pairs])
    return pad_sequence(rows, batch_first=True), pad_sequence(columns, batch_first=True).mT


class FrugalByBoth(torch.autograd.Function):
    """A list of what is kept, and gradients by sums over tokens."""

    @staticmethod
    def forward(ctx, x, W):
        pairs = zip((W, x), ctx.needs_input_grad, strict=True)
        ctx.save_for_backward(*(tensor for tensor, needed in pairs if needed))
        return torch.einsum("ni,oi->no", x, W)

    @staticmethod
    def backward(ctx, g):
        kept, (for_x, for_W) = list(ctx.saved_tensors), ctx.needs_input_grad
        of_x = torch.einsum("no,oi->ni", g, kept.pop(0)) if for_x else None
        return of_x, torch.einsum("no,ni->oi", g, kept.pop()) if for_W else None


def kept_in_a_list(model, run):
    """All tensors first, then their storages, by what they hold."""
    tensors = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: tensors.append(t) or t, lambda t: t):
        run()
    own = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}
    return sum(len(storages[place]) for place in storages.keys() - own)


def groups_by_lists(named, lr, ratio, weight_decay):
    """One comprehension a group."""
    learn = [(name.split(".")[-1], p) for name, p in named.items() if p.requires_grad]
    A = [p for kind, p in learn if kind == "lora_A"]
    B = [p for kind, p in learn if kind == "lora_B"]
    others = [p for kind, p in learn if kind not in ("lora_A", "lora_B")]
    found = [dict(params=A, lr=lr), dict(params=B, lr=ratio * lr), dict(params=others, lr=lr)]
    return [group | {"weight_decay": weight_decay} for group in found if group["params"]]


def reach_by_corners(x, A, B, lr):
    """By the signs that are worst for each output."""
    of_A = [(row[:, None] * torch.outer(row.sign(), x.sign() * lr) * x).sum() for row in B]
    of_B = torch.full((len(B),), float(lr * torch.linalg.vector_norm(A @ x, 1)))
    return torch.stack(of_A), of_B


def choice_by_sorting(right, choose):
    """All pairs, sorted, in floating-point numbers."""
    shares = sorted((each[:, choose].double().mean().item(), pair) for pair, each in right.items())
    chosen = shares[-1][1]
    return list(chosen), float(np.mean(right[chosen].numpy()[:, ~choose.numpy()]))


def interval_by_pandas(differences):
    """By pandas, as an array."""
    means = pd.DataFrame(differences).mean(axis=1)
    return np.array([means.mean(), stats.t.ppf(0.975, len(means) - 1) * means.sem()])


def false_positives_at_once(way, sets, seeds, between, within, studies=2000):
    """All studies are drawn at once, a set's mean first."""
    chance = np.random.default_rng(7)
    shape = (studies, sets, seeds)
    runs = chance.normal(
        np.repeat(chance.normal(0, between, shape[:2])[..., None], seeds, 2), within
    )
    found = np.array([way(study) for study in runs])
    return float(np.mean(np.abs(found[:, 0]) > found[:, 1]))


def norms_by_kind(blocks):
    """By the kinds of the layers."""
    blocks.requires_grad_(False)
    for layer in blocks.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.requires_grad_(True)
        elif getattr(layer, "bias", None) is not None:
            layer.bias.requires_grad = True


def pair_by_hook(blocks, adapter, rank):
    """A hook of the norm, which a pair that the block owns takes its width from."""
    for block in blocks:
        block.pair = adapter(block.mlp.lin1.in_features, rank)
        block.norm2.register_forward_hook(lambda _, args, tokens, pair=block.pair: pair(tokens))
    return nn.ModuleList(block.pair for block in blocks)


def stand_ins_by_roots(W):
    """By the root of W W^T, and Q of a matrix of normal deviates."""
    values, U = torch.linalg.eigh(W @ W.mT)
    even = U / values.sqrt()[:, None] @ U.mT @ W
    sizes = values.mean(1).sqrt()[:, None, None]
    return even * sizes, torch.linalg.qr(torch.randn_like(W)).Q * sizes


def search_by_lists(score, first):
    """Two lists in order, widened at either end."""
    rates = [first, 3 * first]
    reached = [score(rate) for rate in rates]
    while len(rates) < 3 or reached[0] == max(reached) or reached[-1] == max(reached):
        low = reached[0] == max(reached) or len(rates) == 2
        rate = rates[0] / 3 if low else rates[-1] * 3
        rates.insert(0 if low else len(rates), rate)
        reached.insert(0 if low else len(reached), score(rate))
    return dict(zip(rates, reached, strict=True))


def pair_by_singular_values(before, after, rank):
    """All of B A by the normal equations, split by its singular values."""
    product = torch.linalg.solve(before.T @ before, before.T @ (after - before))
    U, S, Vh = torch.linalg.svd(product)
    return Vh[:rank], U[:, :rank] * S[:rank]


def suspects_by_loops(features, labels, train, test):
    """Pair by pair."""
    limit = min(
        (features[i] - features[j]).norm() for i in train for j in train if labels[i] != labels[j]
    )
    return [i for i in test if any((features[i] - features[j]).norm() < limit for j in train)]


def climbed(right, bar):
    """Way by way, with the leads of all draws at once."""
    ways = iter(right)
    taken = next(ways)
    while right[taken].float().mean(1).min() < bar:
        if (way := next(ways, None)) is None:
            return taken, False
        ahead = right[way].float() - right[taken].float()
        if (ahead.sum(1) > 2 * ahead.std(1) * ahead.shape[1] ** 0.5).all():
            taken = way
    return taken, True


def moved_by_a_copy(model, steps, rate):
    """Against a copy of the whole model, in float64."""
    old = dict(copy.deepcopy(model).named_parameters())
    steps()
    found = {}
    for name, tensor in filter(lambda pair: pair[1].requires_grad, model.named_parameters()):
        change = np.abs(tensor.detach().double().numpy() - old[name].detach().double().numpy())
        found[name] = (np.count_nonzero(change) / change.size, change.max() / rate)
    return found


def through_blocks_from_a_leaf(blocks, tokens, reentrant):
    """The given tokens need a gradient with either kind."""
    tokens.requires_grad_()
    for block in blocks:
        tokens = checkpoint(block, tokens, use_reentrant=reentrant)
    return tokens


def lower_by_setting(model):
    """Module by module."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            kind = torch.float32 if parameter.requires_grad else torch.bfloat16
            parameter.data = parameter.detach().clone().type(kind)
    return model


def run_by_modules():
    """With a loss of logarithms, and an optimizer of what requires a gradient."""
    model, batches = posted.classifier()
    inject(model, SerialLoRAConfig(rank=8))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.003)
    loss = torch.nn.NLLLoss()
    return posted.Run(model, optimizer, lambda b: loss(model(b[0]).log_softmax(-1), b[1]), batches)


ANSWERS = {
    "2.2": [FrugalByBoth],
    "2.3": [kept_in_a_list],
    "0.1": [tokens_by_columns],
    "0.2": [
        lambda before, after, truth: tuple(
            torch.where((old == truth) > (new == truth))[0]
            for old, new in ((before, after), (after, before))
        )
    ],
    "0.3": [without_by_hooks],
    "1.1": [keep_by_numpy],
    "1.2": [LoRAAsLinear],
    "1.3": [
        {  # tokens as columns, and the same products by way of another basis of the rank
            "x + self.scale * (x @ self.lora_A.T @ self.lora_B.T)": "torch.addmm(torch.eye(x.shape[-1]), "
            "self.lora_B, self.lora_A, alpha=self.scale)",
            "(changed @ self.W.T)": "(x @ changed.T @ self.W.T)",
            "(self.lora_A, W_p @ self.lora_B)": "(-2 * self.lora_A, W_p @ self.lora_B / -2)",
        }
    ],
    "1.4": [imitate_by_projecting],
    "1.5": [stretched_by_columns],
    "3.1": [
        {
            "change = self.scale * (weight @ self.lora_B) @ self.lora_A": (
                "dense = torch.eye(len(self.lora_B)) + self.scale * self.lora_B @ self.lora_A"
            ),
            "weight + change": "weight @ dense",
        },
        {
            "change = self.scale * (weight @ self.lora_B) @ self.lora_A": "change = self(torch.eye(len(self.lora_B)))",
            "weight + change": "weight @ change.T",
        },
    ],
    "3.2": [
        {
            "block.attention(tokens)": "block.attend(block.q(tokens), block.k(tokens), block.v(tokens))"
        }
    ],
    "3.3": [
        {
            "pair.lora_B.normal_(std=0.1)": "pair.lora_B.fill_(0.3)",
            "torch.allclose(alone, adapted, atol=1e-5)": "bool((alone - adapted).norm() < 1e-5 * adapted.norm())",
        },
    ],
    "3.4": [
        {
            "with torch.no_grad():": "if True:",
            "layer.in_proj_weight.copy_(pair.merged(layer.in_proj_weight))": (
                "layer.in_proj_weight = nn.Parameter(pair.merged(layer.in_proj_weight).detach())"
            ),
        },
    ],
    "3.5": [
        {  # pairs that the model holds in one list, each bound to its hook; tokens compared in value
            "model.requires_grad_(False)": (
                "[p.requires_grad_(False) for p in model.parameters()]\n    "
                "model.pairs = nn.ModuleList(adapter(m.embed_dim, rank=rank) for m in layers)"
            ),
            "for layer in layers:": "for layer, pair in zip(layers, model.pairs):",
            "layer.serial_lora = adapter(layer.embed_dim, rank)": "",
            "(layer, args)": "(pair, args)",
            "q is not k or q is not v": "not (torch.equal(q, k) and torch.equal(q, v))",
            "layer.serial_lora(q)": "pair(q)",
            "(adapt_tokens)": "(lambda _, args, pair=pair: adapt_tokens(pair, args))",
            "return [layer.serial_lora for layer in layers]": "return model.pairs",
        },
        {  # a hook that sees keywords, and adapts each of q, k and v
            "(layer, args)": "(layer, args, kwargs)",
            "tokens, tokens, tokens, *args[3:]": "tuple(map(layer.serial_lora, args)), kwargs",
            "(adapt_tokens)": "(adapt_tokens, with_kwargs=True)",
        },
    ],
    "4.1": [
        lambda pictures, sentences, kinds: kinds[
            torch.cosine_similarity(pictures[:, None], sentences[kinds], dim=-1).max(dim=1).indices
        ],
    ],
    "4.2": [
        {  # by another formula, with the pull on the pictures' products
            "change = torch.linalg.solve(pictures.T @ pictures + pull, pictures.T @ missed)": (
                "change = pictures.T @ torch.linalg.solve("
                "pictures @ pictures.T + alpha * torch.eye(len(pictures)), missed)"
            ),
        },
    ],
    "4.4": [
        {
            "CosineAnnealingLR(optimizer, steps)": (
                "LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps))"
            ),
            "optimizer.zero_grad()": "pass",
            "schedule.step()": "schedule.step(), clip.zero_grad()",
            "clip.eval()": "clip.train(False)",
        },
    ],
    "4.5": [
        lambda ours, theirs: (
            int(ours.sum() - theirs.sum()),
            2 * len(ours) ** 0.5 * np.std(ours.numpy() * 1.0 - theirs.numpy(), ddof=1),
        ),
    ],
    "4.6": [
        {  # in another order, by another mask, in floating-point numbers
            "asked = torch.isin(labels, others)": "asked = sum(labels == kind for kind in others) > 0",
            "own = [": "own = (",
            "if kind in labelled]": "if kind in labelled)",
            "right[1].int() - right[0].int()": "right[1].float() - right[0].float()",
        },
    ],
    "5.2": [
        {
            "perfect = F.pad(ready.truth.float() - 0.5, padding, value=-0.5)": (
                "perfect = torch.full((len(ready.truth), side, side), -3.0)\n"
                "    perfect[:, :height, :width][ready.truth] = 3.0"
            ),
            "tight[:, 2:] += 1": "tight = tight + torch.tensor([0, 0, 1, 1])",
            ".abs().amax(1)": ".abs().max(dim=1).values",
        },
    ],
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
        {
            "lab.decode(model, embedding[None], each.boxes)": (
                "lab.decode_each(model, embedding[None], [each.boxes])[0]"
            ),
        },
    ],
    "5.5": [
        {
            ".float() - 0.5": ".float() * 2 - 1",
            "(asked & truth).sum((1, 2)) / truth.sum((1, 2))": (
                "torch.stack([a[t].float().mean() for a, t in zip(asked, truth)])"
            ),
        },
    ],
    "6.3": [
        {
            "without + w * (prompted(points, level) - without)": (
                "torch.lerp(without, prompted(points, level), w)"
            ),
        },
    ],
    "7.1": [groups_by_lists],
    "7.2": [reach_by_corners],
    "7.3": [choice_by_sorting],
    "8.1": [interval_by_pandas],
    "8.3": [false_positives_at_once],
    "9.1": [norms_by_kind],
    "9.2": [pair_by_hook],
    "9.3": [search_by_lists],
    "9.4": [stand_ins_by_roots],
    "10.1": [
        {"falls[: len(values) // 2].argmax()": "values[: len(values) // 2].log().diff().argmin()"},
    ],
    "10.2": [pair_by_singular_values],
    "10.3": [
        lambda one, other: float((np.cos(subspace_angles(one, other)) ** 2).sum() / one.shape[1]),
    ],
    "11.1": [
        {  # the root of each weight on both factors, and its sign on one
            "A_i for A_i, _ in pairs": "abs(w) ** 0.5 * A_i for w, (A_i, _) in zip(weights, pairs)",
            "w * B_i": "w / abs(w) ** 0.5 * B_i",
        }
    ],
    "11.2": [stack_as_sequences],
    "11.3": [{"(x @ A.mT) @ B.mT": "torch.einsum('bnd,brd,bor->bno', x, A, B)"}],
    "11.4": [
        {  # whether each matches, and the first that does
            "gaps.min(dim=0)": "(gaps <= tolerance).float().max(dim=0)",
            "least > tolerance": "least == 0",
        }
    ],
    "12.2": [suspects_by_loops],
    "12.3": [climbed],
    "13.1": [moved_by_a_copy],
    "13.2": [through_blocks_from_a_leaf],
    "13.3": [lower_by_setting],
    "13.4": [lambda: {7: "high rate", "6": ["start"], 5: ("low rate", "optimizer"), 4: "format"}],
    "13.5": [run_by_modules],
}
RIGHT = {
    number: [
        answer if callable(answer) else solved(number, tuple(chain(*answer.items())))
        for answer in answers
    ]
    for number, answers in ANSWERS.items()
}
