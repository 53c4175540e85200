"""Right and wrong answers to the exercises of lessons 00, 02 and 03."""

import copy
from fractions import Fraction

import torch
from torch import nn

# ------------------------------------------------------------------------- lesson 00


def leave_unfrozen(model):
    return model


def set_an_attribute(model):
    model.requires_grad = False
    return model


def freeze_own_children_only(model):
    for module in model:
        for parameter in module._parameters.values():
            parameter.requires_grad = False
    return model


def only_eval(model):
    return model.eval()


def freeze_without_return(model):
    model.requires_grad_(False)


def zero_the_weights(model):
    for parameter in model.requires_grad_(False).parameters():
        parameter.zero_()
    return model


# ------------------------------------------------------------------------- lesson 03


def adapter_class(
    *,
    zero_A=False,
    zero_B=True,
    swap=False,
    bias=False,
    plain=False,
    names=("lora_A", "lora_B"),
    forward=None,
    pairs=1,
    constant=False,
    frozen=False,
    learnt_scale=False,
    early=False,
    default=1.0,
    size=1.0,
    seeded=False,
    dtype=torch.float32,
):
    """An adapter module with one thing changed; ``forward(x, A, B, scale)`` computes."""

    class Adapter(nn.Module):
        def __init__(self, width, rank, scale=default):
            if seeded:
                torch.manual_seed(0)
            if early:
                self.lora_A = nn.Parameter(torch.zeros(rank, width))
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(scale)) if learnt_scale else scale
            A = torch.zeros(rank, width) if zero_A else size * torch.randn(rank, width)
            if constant:
                A.fill_(0.1)
            B = (torch.zeros(width, rank) if zero_B else torch.randn(width, rank)).to(dtype)
            if swap:
                A, B = A.T.clone(), B.T.clone()
            wrap = (lambda t: t) if plain else nn.Parameter
            setattr(self, names[0], wrap(A))
            setattr(self, names[1], wrap(B))
            if bias:
                self.bias = nn.Parameter(torch.zeros(width))
            for index in range(1, pairs):
                setattr(self, f"lora_A{index}", nn.Parameter(A.clone()))
                setattr(self, f"lora_B{index}", nn.Parameter(B.clone()))
            if frozen:
                self.lora_A.requires_grad_(False)

        def forward(self, x):
            compute = forward or (lambda x, A, B, s: x + s * x @ A.T @ B.T)
            return compute(x, self.lora_A, self.lora_B, self.scale)

    return Adapter


@torch.no_grad()
def change_without_gradient(x, A, B, s):
    return s * x @ A.T @ B.T


def hooked(block, adapter, x):
    """A right value, by way of a hook that stays."""
    block.norm.register_forward_hook(lambda module, given, normed: adapter(normed))
    return block(x)


def add_to_x(block, adapter, x):
    x += block.attention(adapter(block.norm(x)))
    return x


def effect_with_names_rebound(adapted, x):
    other = copy.deepcopy(adapted)
    for name, p in other.named_parameters():
        if name.endswith("lora_B"):
            p = torch.randn_like(p)  # noqa: PLW2901 - the mistake
    return not torch.equal(other(x), adapted(x))


def close_effect(adapted, x):
    other = copy.deepcopy(adapted)
    for name, p in other.named_parameters():
        if name.endswith("lora_B"):
            p.data.fill_(0.1)
    return not torch.allclose(other(x), adapted(x), atol=1.0)


def right_effect(adapted, x):
    other = copy.deepcopy(adapted)
    for name, parameter in other.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    return bool((other(x) != adapted(x)).any())


def effect_in_place(adapted, x):
    before = adapted(x)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    return bool((before != adapted(x)).any())


def right_residual(adapted, x, fill=True, bias=True, copied=True, tolerance=1e-6):
    silent = copy.deepcopy(adapted) if copied else adapted
    silent.block.out.weight.data.zero_()
    if bias:
        silent.block.out.bias.data.zero_()
    for name, parameter in silent.named_parameters():
        if fill and "lora_B" in name:
            parameter.data.fill_(0.3)
    return bool((silent(x) - x).abs().max() < tolerance)


RIGHT = {
    "0.1": lambda x, A, B: (B @ (A @ x.unsqueeze(-1))).squeeze(-1),
    "0.2": lambda width, rank: width * (width - 2 * rank),
    "0.3": lambda model: model.requires_grad_(False),
    "2.1": lambda inputs, outputs, rank: rank * (inputs + outputs),
    "2.2": lambda towers, rank: 2 * rank * sum(w * d for w, d in towers),
    "2.3": lambda model: sum(p.numel() * p.requires_grad for p in model.parameters()),
    "2.4": lambda shapes, width: Fraction(sum(map(sum, shapes)), 2 * width),
    "3.1": adapter_class(),
    "3.2": lambda block, adapter, x: block.attention(adapter(block.norm(x))) + x,
    "3.3": lambda W, A, B, s: W + s * (W @ B) @ A,
    "3.4": right_effect,
    "3.5": right_residual,
    "3.6": lambda adapted: len({id(p) for n, p in adapted.named_parameters() if "lora_A" in n}),
}

WRONG = {
    "0.1": {
        "A and B swapped": (lambda x, A, B: x @ B @ A, "A and B are swapped"),
        "only A": (lambda x, A, B: x @ A.T, "only A is there"),
        "x added": (lambda x, A, B: x + x @ A.T @ B.T, "x is added"),
        "shapes that do not fit": (lambda x, A, B: x @ A @ B, "two matrices do not fit"),
    },
    "0.2": {
        "the pair itself": (lambda d, r: 2 * d * r, "what the pair holds"),
        "one matrix": (lambda d, r: d * d - d * r, "only one matrix"),
        "sign": (lambda d, r: 2 * d * r - d * d, "sign is turned round"),
        "a ratio": (lambda d, r: d * d / (2 * d * r), "how many times smaller"),
        "a share": (lambda d, r: 1 - 2 * r / d, "that is a share"),
        "never negative": (lambda d, r: max(0, d * d - 2 * d * r), "be negative, not 0"),
        "no sign": (lambda d, r: abs(d * d - 2 * d * r), "let the result be negative"),
        "rank squared": (lambda d, r: d * d - 2 * r * r, "not r x r"),
    },
    "0.3": {
        "nothing": (leave_unfrozen, "no parameter was frozen"),
        "an attribute": (set_an_attribute, "an attribute that nobody reads"),
        "only the first level": (freeze_own_children_only, "modules inside modules"),
        "eval": (only_eval, "eval\\(\\) changes dropout"),
        "no return": (freeze_without_return, "return the model"),
        "zeroed": (zero_the_weights, "freeze, do not change"),
    },
    "2.1": {
        "square": (lambda i, o, r: 2 * i * r, "taken to be square"),
        "square by outputs": (lambda i, o, r: 2 * o * r, "inputs can differ from outputs"),
        "a scale": (lambda i, o, r: r * (i + o) + 1, "the scale is fixed"),
        "only A": (lambda i, o, r: i * r, "only A is counted"),
        "only B": (lambda i, o, r: o * r, "only B is counted"),
        "with a bias": (lambda i, o, r: r * (i + o) + o, "no bias"),
        "the full matrix": (lambda i, o, r: i * o, "that is the full matrix"),
    },
    "2.2": {
        "LoRA": (lambda t, r: sum(8 * r * w * d for w, d in t), "that is LoRA"),
        "a pair per projection": (lambda t, r: sum(6 * r * w * d for w, d in t), "a pair for each"),
        "one matrix": (lambda t, r: sum(r * w * d for w, d in t), "only one matrix"),
        "no depth": (lambda t, r: sum(2 * r * w for w, d in t), "the depth is left out"),
        "widths times depths": (
            lambda t, r: 2 * r * sum(w for w, d in t) * sum(d for w, d in t),
            "its own depth",
        ),
        "full matrices": (lambda t, r: sum(w * w * d for w, d in t), "of a full matrix"),
        "the first tower": (lambda t, r: 2 * r * t[0][0] * t[0][1], "only the first tower"),
    },
    "2.3": {
        "frozen too": (lambda m: sum(p.numel() for p in m.parameters()), "frozen parameters are"),
        "shared twice": (
            lambda m: sum(
                p.numel()
                for module in m.modules()
                for p in module._parameters.values()
                if p is not None and p.requires_grad
            ),
            "counted twice",
        ),
        "tensors": (lambda m: sum(p.requires_grad for p in m.parameters()), "not their elements"),
        "by name": (
            lambda m: sum(p.numel() for n, p in m.named_parameters() if "lora" in n),
            "only what is called lora_",
        ),
        "every module's all": (
            lambda m: sum(
                p.numel() for k in m.modules() for p in k.parameters() if p.requires_grad
            ),
            "nested modules are visited again",
        ),
        "turned round": (
            lambda m: sum(p.numel() for p in m.parameters() if not p.requires_grad),
            "turn the condition round",
        ),
    },
    "2.4": {
        "upside down": (lambda s, w: Fraction(2 * w, sum(i + o for i, o in s)), "upside down"),
        "pairs counted": (lambda s, w: Fraction(len(s)), "another size"),
        "a float": (lambda s, w: sum(i + o for i, o in s) / (2 * w), "division with / rounds"),
        "half a pair below": (lambda s, w: Fraction(sum(i + o for i, o in s), w), "two matrices"),
        "always four": (lambda s, w: Fraction(4), "always four|another size"),
        "rounded first": (lambda s, w: Fraction(sum(map(sum, s)) / (2 * w)), "rounded on the way"),
        "multiplied": (
            lambda s, w: Fraction(sum(i * o for i, o in s), 2 * w),
            "inputs and outputs are multi",
        ),
    },
    "3.1": {
        "A and B swapped": (adapter_class(swap=True), "A and B are swapped"),
        "B not zero": (adapter_class(zero_B=False), "B is not zero"),
        "A zero, B not": (adapter_class(zero_A=True, zero_B=False), "swapped at the start"),
        "both zero": (adapter_class(zero_A=True), "nothing could learn"),
        "scale forgotten": (
            adapter_class(forward=lambda x, A, B, s: x + x @ A.T @ B.T),
            "the scale is forgotten",
        ),
        "scale over rank": (
            adapter_class(forward=lambda x, A, B, s: x + s / len(A) * x @ A.T @ B.T),
            "divided by the rank",
        ),
        "x lost": (adapter_class(forward=lambda x, A, B, s: s * x @ A.T @ B.T), "x itself is lost"),
        "scale on x": (
            adapter_class(forward=lambda x, A, B, s: s * (x + x @ A.T @ B.T)),
            "multiplies x too",
        ),
        "product turned round": (
            adapter_class(forward=lambda x, A, B, s: x + s * x @ B @ A),
            "swapped in the product",
        ),
        "a bias": (adapter_class(bias=True), "no bias"),
        "other names": (adapter_class(names=("down", "up")), "name the parameters"),
        "plain tensors": (adapter_class(plain=True), "nn.Parameter"),
        "a pair per projection": (adapter_class(pairs=3), "a pair per projection"),
        "not a module": (lambda width, rank, scale=1.0: None, "inherit from nn.Module"),
        "A constant": (adapter_class(constant=True), "equal rows of A learn the same"),
        "A frozen": (adapter_class(frozen=True), "A and B are what is trained"),
        "a learnt scale": (adapter_class(learnt_scale=True), "the scale is fixed"),
        "super too late": (adapter_class(early=True), "super\\(\\).__init__\\(\\) has to run"),
        "no gradient": (
            adapter_class(forward=lambda *given: given[0] + change_without_gradient(*given)),
            "lora_A gets no gradient|no gradient reaches",
        ),
        "A detached": (
            adapter_class(forward=lambda x, A, B, s: x + s * x @ A.detach().T @ B.T),
            "lora_A gets no gradient",
        ),
        "x detached": (
            adapter_class(forward=lambda x, A, B, s: x + s * x.detach() @ A.T @ B.T),
            "cut off",
        ),
        "another default": (adapter_class(default=2.0), "default of scale is 1"),
        "a large A": (adapter_class(size=100), "a large A makes the first steps explode"),
        "A of anything": (adapter_class(size=torch.inf), "torch.empty holds anything"),
        "seeded": (adapter_class(seeded=True), "every adapter gets the same A"),
        "float64": (adapter_class(dtype=torch.float64), "adapters are float32"),
        "three dimensions": (
            adapter_class(
                forward=lambda x, A, B, s: x + s * torch.einsum("bnd,rd,or->bno", x, A, B)
            ),
            "any number of dimensions",
        ),
        "x in place": (
            adapter_class(forward=lambda x, A, B, s: x.add_((s * x @ A.T @ B.T).detach())),
            "changed in place",
        ),
    },
    "3.2": {
        "before the residual split": (lambda b, a, x: b(a(x)), "before the residual split"),
        "before the norm": (lambda b, a, x: x + b.attention(b.norm(a(x))), "before the norm"),
        "on the output": (lambda b, a, x: x + a(b.attention(b.norm(x))), "is on the output"),
        "on the whole output": (lambda b, a, x: a(b(x)), "whole output of the block"),
        "only q": (
            lambda b, a, x: x + b.attend(b.q(a(b.norm(x))), b.k(b.norm(x)), b.v(b.norm(x))),
            "only q is adapted",
        ),
        "residual lost": (lambda b, a, x: b.attention(a(b.norm(x))), "residual is lost"),
        "added twice": (lambda b, a, x: x + b.attention(b.norm(x) + a(b.norm(x))), "go in twice"),
        "no norm": (lambda b, a, x: x + b.attention(a(x)), "norm is left out"),
        "no adapter": (lambda b, a, x: b(x), "never used"),
        "beside attention": (
            lambda b, a, x: x + a(b.norm(x)) + b.attention(b.norm(x)),
            "belong inside attention",
        ),
        "the stream too": (
            lambda b, a, x: a(x) + b.attention(a(b.norm(x))),
            "the stream is adapted as well",
        ),
        "no gradient": (
            lambda b, a, x: torch.no_grad()(lambda: x + b.attention(a(b.norm(x))))(),
            "no gradient reaches",
        ),
        "tokens detached": (
            lambda b, a, x: x + b.attention(a(b.norm(x).detach())),
            "cut off",
        ),
        "a hook that stays": (hooked, "by a hook"),
        "x in place": (add_to_x, "changed in place"),
        "the stream alone": (
            lambda b, a, x: a(x) + b.attention(b.norm(x)),
            "only the stream is adapted",
        ),
    },
    "3.3": {
        "LoRA's merge": (lambda W, A, B, s: W + s * B @ A, "that is LoRA"),
        "wrong side": (
            lambda W, A, B, s: (torch.eye(len(W)) + s * B @ A) @ W,
            "order is turned round",
        ),
        "I forgotten": (lambda W, A, B, s: s * W @ B @ A, "the I is forgotten"),
        "transposed": (
            lambda W, A, B, s: W @ (torch.eye(W.shape[1]) + s * A.T @ B.T),
            "swapped or transposed",
        ),
        "in place": (lambda W, A, B, s: W.add_(s * W @ B @ A), "changed in place"),
        "scale forgotten": (lambda W, A, B, s: W + W @ B @ A, "the scale is forgotten"),
        "scale on W too": (lambda W, A, B, s: s * (W + W @ B @ A), "multiplies W too"),
        "scale over rank": (lambda W, A, B, s: W + s / len(A) * W @ B @ A, "divided by the rank"),
        "A B": (
            lambda W, A, B, s: W @ (torch.eye(W.shape[1]) + A @ B),
            "tensors of different shapes",
        ),
    },
    "3.4": {
        "fresh outputs": (lambda a, x: bool((a(x) != a.block(x)).any()), "fill B first"),
        "always True": (lambda a, x: True, "never reaches the output"),
        "parameters, not outputs": (
            lambda a, x: any("lora" in name for name, _ in a.named_parameters()),
            "compare outputs, not",
        ),
        "in place": (effect_in_place, "work on copy.deepcopy"),
        "names rebound": (effect_with_names_rebound, "only gives the name to another"),
        "turned round": (lambda a, x: not right_effect(a, x), "turned round"),
        "too loose": (close_effect, "tolerance is too loose"),
        "a tensor": (lambda a, x: torch.tensor(True), "a plain True or False"),
    },
    "3.5": {
        "B not filled": (lambda a, x: right_residual(a, x, fill=False), "fill B first"),
        "bias left": (lambda a, x: right_residual(a, x, bias=False), "set weight and bias"),
        "attention not silenced": (lambda a, x: bool(torch.equal(a(x), x)), "still adds something"),
        "in place": (lambda a, x: right_residual(a, x, copied=False), "work on copy.deepcopy"),
        "turned round": (lambda a, x: not right_residual(a, x), "turned round"),
        "too loose": (lambda a, x: right_residual(a, x, tolerance=10), "tolerance is too loose"),
    },
    "3.6": {
        "both matrices": (
            lambda a: sum("lora" in name for name, _ in a.named_parameters()),
            "both matrices",
        ),
        "names": (lambda a: sum("lora_A" in n for n in a.state_dict()), "three names is still one"),
        "elements": (
            lambda a: sum(p.numel() for n, p in a.named_parameters() if "lora" in n),
            "elements",
        ),
    },
}
