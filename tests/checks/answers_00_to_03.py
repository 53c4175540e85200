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


def freeze_weights_only(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.endswith("weight"))
    return model


def freeze_the_first(model):
    for parameter in model.parameters():
        parameter.requires_grad = False
        return model  # inside the loop


def freeze_linear_layers(model):
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.requires_grad_(False)
    return model


def turn_into_buffers(model):
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            del module._parameters[name]
            module.register_buffer(name, parameter.detach())
    return model


def freeze_a_copy(model):
    return copy.deepcopy(model).requires_grad_(False)


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
    end=lambda adapter: None,
):
    """An adapter module with one thing changed; ``forward(x, A, B, scale)`` computes.

    ``end`` is called at the end of ``__init__``.
    """

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
            end(self)

        def forward(self, x):
            compute = forward or (lambda x, A, B, s: x + s * x @ A.T @ B.T)
            return compute(x, self.lora_A, self.lora_B, self.scale)

    return Adapter


class LinearLayers(nn.Module):
    """The matrices as nn.Linear: other names."""

    def __init__(self, width, rank, scale=1.0):
        super().__init__()
        self.lora_A = nn.Linear(width, rank, bias=False)
        self.lora_B = nn.Linear(rank, width, bias=False)
        self.scale = scale
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        return x + self.scale * self.lora_B(self.lora_A(x))


class FixedRank(adapter_class()):
    def __init__(self, width, rank, scale=1.0):
        super().__init__(width, 4, scale)


class TrainOnly(adapter_class()):
    def forward(self, x):
        return super().forward(x) if self.training else x


def keep_product(adapter):
    adapter.product = (adapter.lora_B @ adapter.lora_A).detach()


def keep_transpose(adapter):
    adapter.transposed = adapter.lora_A.T


class OldProduct(adapter_class(end=keep_product)):
    def forward(self, x):
        return x + self.scale * x @ self.product.T


class OldTranspose(adapter_class(end=keep_transpose)):
    def forward(self, x):
        return x + self.scale * x @ self.transposed @ self.lora_B.T


@torch.no_grad()
def same_rows(adapter):
    adapter.lora_A.copy_(adapter.lora_A[:1].expand_as(adapter.lora_A))


@torch.no_grad()
def identity_rows(adapter):
    adapter.lora_A.copy_(torch.eye(*adapter.lora_A.shape))


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


def reading(plain_parts):
    """A forward pass in which some of q, k and v read plain tokens."""

    def attempt(block, adapter, x):
        normed = block.norm(x)
        parts = [getattr(block, p)(normed if p in plain_parts else adapter(normed)) for p in "qkv"]
        return x + block.attend(*parts)

    return attempt


def behind_q_k_v(block, adapter, x):
    normed = block.norm(x)
    return x + block.attend(*(adapter(getattr(block, p)(normed)) for p in "qkv"))


def in_eval_mode(block, adapter, x):
    return x + block.eval().attention(adapter(block.norm(x)))


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
    return not torch.allclose(other(x), adapted(x), atol=0.01)


def effect_of_all(adapted, x):
    other = copy.deepcopy(adapted)
    for p in other.parameters():
        p.data.normal_()
    return not torch.allclose(other(x), adapted(x))


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


def residual_without_attention(adapted, x):
    adapted = copy.deepcopy(adapted)
    adapted.block.attention = torch.zeros_like
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_()
        return torch.equal(adapted(x), x)


WRONG = {
    "0.1": {
        ("A and B swapped", "A and B are swapped"): lambda x, A, B: x @ B @ A,
        ("only A", "only A is there"): lambda x, A, B: x @ A.T,
        ("x added", "x is added"): lambda x, A, B: x + x @ A.T @ B.T,
        ("shapes that do not fit", "two matrices do not fit"): lambda x, A, B: x @ A @ B,
        ("over the rank", "divided by the rank"): lambda x, A, B: x @ A.T @ B.T / len(A),
        ("detached", "no gradient reaches"): lambda x, A, B: x @ A.detach().T @ B.detach().T,
        ("float64", "of float64"): lambda x, A, B: x.double() @ A.double().T @ B.double().T,
        ("squeezed", "shapes differ"): lambda x, A, B: (x.unsqueeze(0) @ A.T @ B.T).squeeze(),
        ("matrices only", "any number of dimensions"): lambda x, A, B: x.mm(A.T).mm(B.T),
        ("in place", "changed in place"): lambda x, A, B: x.copy_(x @ A.T @ B.T),
    },
    "0.2": {
        ("the pair itself", "what the pair holds"): lambda d, r: 2 * d * r,
        ("one matrix", "only one matrix"): lambda d, r: d * d - d * r,
        ("sign", "sign is turned round"): lambda d, r: 2 * d * r - d * d,
        ("a ratio", "how many times smaller"): lambda d, r: d * d / (2 * d * r),
        ("a share", "that is a share"): lambda d, r: 1 - 2 * r / d,
        ("never negative", "be negative, not 0"): lambda d, r: max(0, d * d - 2 * d * r),
        ("no sign", "let the result be negative"): lambda d, r: abs(d * d - 2 * d * r),
        ("sums of sides", "not rows \\+ columns"): lambda d, r: d * d - 2 * (d + r),
        ("rank squared", "not r x r"): lambda d, r: d * d - 2 * r * r,
    },
    "0.3": {
        ("nothing", "no parameter was frozen"): leave_unfrozen,
        ("an attribute", "an attribute that nobody reads"): set_an_attribute,
        ("only the first level", "modules inside modules"): freeze_own_children_only,
        ("only weights", "biases are parameters too"): freeze_weights_only,
        ("eval", "eval\\(\\) changes dropout"): only_eval,
        ("no return", "return the model"): freeze_without_return,
        ("return in the loop", "stands inside the loop"): freeze_the_first,
        ("linear layers", "norms have parameters too"): freeze_linear_layers,
        ("buffers", "do not replace them"): turn_into_buffers,
        ("a copy", "return the model that came in"): freeze_a_copy,
        ("zeroed", "do not change them"): zero_the_weights,
    },
    "2.1": {
        ("square", "taken to be square"): lambda i, o, r: 2 * i * r,
        ("square by outputs", "inputs can differ from outputs"): lambda i, o, r: 2 * o * r,
        ("a scale", "the scale is fixed"): lambda i, o, r: r * (i + o) + 1,
        ("only A", "only A is counted"): lambda i, o, r: i * r,
        ("only B", "only B is counted"): lambda i, o, r: o * r,
        ("with a bias", "no bias"): lambda i, o, r: r * (i + o) + o,
        ("no rank", "the rank is left out"): lambda i, o, r: i + o,
        ("two biases", "nn.Linear adds one"): lambda i, o, r: (r * i + r) + (o * r + o),
        ("twice", "twice as much"): lambda i, o, r: 2 * r * (i + o),
        ("bytes", "those are bytes"): lambda i, o, r: 4 * r * (i + o),
        ("the full matrix", "that is the full matrix"): lambda i, o, r: i * o,
    },
    "2.2": {
        ("LoRA", "that is LoRA"): lambda t, r: sum(8 * r * w * d for w, d in t),
        ("a pair per projection", "a pair for each"): lambda t, r: sum(6 * r * w * d for w, d in t),
        ("one matrix", "only one matrix"): lambda t, r: sum(r * w * d for w, d in t),
        ("no depth", "the depth is left out"): lambda t, r: sum(2 * r * w for w, d in t),
        ("widths times depths", "its own depth"): lambda t, r: (
            2 * r * sum(w for w, d in t) * sum(d for w, d in t)
        ),
        ("full matrices", "of a full matrix"): lambda t, r: sum(w * w * d for w, d in t),
        ("the first tower", "only the first tower"): lambda t, r: 2 * r * t[0][0] * t[0][1],
        ("the last tower", "only the last tower"): lambda t, r: 2 * r * t[-1][0] * t[-1][1],
        ("twice", "twice as much"): lambda t, r: sum(4 * r * w * d for w, d in t),
    },
    "2.3": {
        ("frozen too", "frozen parameters are"): lambda m: sum(p.numel() for p in m.parameters()),
        ("shared twice", "counted twice"): (
            lambda m: sum(
                p.numel()
                for module in m.modules()
                for p in module.parameters(recurse=False)
                if p.requires_grad
            )
        ),
        ("tensors", "not their elements"): lambda m: sum(p.requires_grad for p in m.parameters()),
        ("by name", "only what is called lora_"): lambda m: sum(
            p.numel() for n, p in m.named_parameters() if "lora" in n
        ),
        ("every module's all", "nested modules are visited again"): (
            lambda m: sum(p.numel() for k in m.modules() for p in k.parameters() if p.requires_grad)
        ),
        ("by the last name", "of one name are taken for one"): lambda m: sum(
            {
                n.rpartition(".")[2]: p.numel() for n, p in m.named_parameters() if p.requires_grad
            }.values()
        ),
        ("a set", "of one size are taken for one"): lambda m: sum(
            {p.numel() for p in m.parameters() if p.requires_grad}
        ),
        ("bytes", "those are bytes"): lambda m: sum(
            p.nbytes for p in m.parameters() if p.requires_grad
        ),
        ("by gradients", "grad is None everywhere"): lambda m: sum(
            p.numel() for p in m.parameters() if p.grad is not None
        ),
        ("turned round", "turn the condition round"): lambda m: sum(
            p.numel() for p in m.parameters() if not p.requires_grad
        ),
    },
    "2.4": {
        ("upside down", "upside down"): lambda s, w: Fraction(2 * w, sum(i + o for i, o in s)),
        ("pairs counted", "another size"): lambda s, w: Fraction(len(s)),
        ("a float", "division with / rounds"): lambda s, w: sum(i + o for i, o in s) / (2 * w),
        ("half a pair below", "two matrices"): lambda s, w: Fraction(sum(i + o for i, o in s), w),
        ("always four", "always four|another size"): lambda s, w: Fraction(4),
        ("rounded first", "rounded on the way"): lambda s, w: Fraction(sum(map(sum, s)) / (2 * w)),
        ("rounded down", "rounds down"): lambda s, w: sum(map(sum, s)) // (2 * w),
        ("a near fraction", "near fraction"): lambda s, w: Fraction(
            sum(map(sum, s)) / (2 * w)
        ).limit_denominator(),
        ("inputs", "only inputs"): lambda s, w: Fraction(sum(i for i, _ in s), w),
        ("outputs", "only outputs"): lambda s, w: Fraction(sum(o for _, o in s), w),
        ("the first matrix", "only the first matrix"): lambda s, w: Fraction(sum(s[0]), 2 * w),
        ("multiplied", "inputs and outputs are multi"): lambda s, w: Fraction(
            sum(i * o for i, o in s), 2 * w
        ),
    },
    "3.1": {
        ("A and B swapped", "A and B are swapped"): adapter_class(swap=True),
        ("B not zero", "B is not zero"): adapter_class(zero_B=False),
        ("A zero, B not", "swapped at the start"): adapter_class(zero_A=True, zero_B=False),
        ("both zero", "nothing could learn"): adapter_class(zero_A=True),
        ("scale forgotten", "the scale is forgotten"): adapter_class(
            forward=lambda x, A, B, s: x + x @ A.T @ B.T
        ),
        ("scale over rank", "divided by the rank"): adapter_class(
            forward=lambda x, A, B, s: x + s / len(A) * x @ A.T @ B.T
        ),
        ("x lost", "x itself is lost"): adapter_class(forward=lambda x, A, B, s: s * x @ A.T @ B.T),
        ("scale on x", "multiplies x too"): adapter_class(
            forward=lambda x, A, B, s: s * (x + x @ A.T @ B.T)
        ),
        ("product turned round", "swapped in the product"): adapter_class(
            forward=lambda x, A, B, s: x + s * x @ B @ A
        ),
        ("a bias", "no bias"): adapter_class(bias=True),
        ("other names", "name the parameters"): adapter_class(names=("down", "up")),
        ("plain tensors", "nn.Parameter"): adapter_class(plain=True),
        ("a pair per projection", "a pair per projection"): adapter_class(pairs=3),
        ("not a module", "inherit from nn.Module"): lambda width, rank, scale=1.0: None,
        ("A constant", "equal rows of A learn the same"): adapter_class(constant=True),
        ("A frozen", "A and B are what is trained"): adapter_class(frozen=True),
        ("a learnt scale", "the scale is fixed"): adapter_class(learnt_scale=True),
        ("super too late", "super\\(\\).__init__\\(\\) has to run"): adapter_class(early=True),
        ("no gradient", "lora_A gets no gradient|no gradient reaches"): adapter_class(
            forward=lambda *given: given[0] + change_without_gradient(*given)
        ),
        ("A detached", "lora_A gets no gradient"): adapter_class(
            forward=lambda x, A, B, s: x + s * x @ A.detach().T @ B.T
        ),
        ("x detached", "cut off"): adapter_class(
            forward=lambda x, A, B, s: x + s * x.detach() @ A.T @ B.T
        ),
        ("another default", "default of scale is 1"): adapter_class(default=2.0),
        ("not linear", "gelu is between A and B"): adapter_class(
            forward=lambda x, A, B, s: x + s * torch.nn.functional.gelu(x @ A.T) @ B.T
        ),
        ("nn.Linear", "nn.Linear keeps its matrix as .weight"): LinearLayers,
        ("a rank of its own", "shapes come from the arguments"): FixedRank,
        ("in training only", "in eval mode too"): TrainOnly,
        ("an old product", "x comes back unchanged"): OldProduct,
        ("an old transpose", "kept from __init__"): OldTranspose,
        ("equal rows", "equal rows of A"): adapter_class(end=same_rows),
        ("an identity", "every adapter gets the same A"): adapter_class(end=identity_rows),
        ("a result of float64", "of float64"): adapter_class(
            forward=lambda x, A, B, s: x.double() + s * x.double() @ (B @ A).double().T
        ),
        ("x twice", "x is added twice"): adapter_class(
            forward=lambda x, A, B, s: 2 * x + s * x @ A.T @ B.T
        ),
        ("a large A", "a large A makes the first steps explode"): adapter_class(size=100),
        ("A of anything", "torch.empty holds anything"): adapter_class(size=torch.inf),
        ("seeded", "every adapter gets the same A"): adapter_class(seeded=True),
        ("float64", "adapters are float32"): adapter_class(dtype=torch.float64),
        ("three dimensions", "any number of dimensions"): (
            adapter_class(
                forward=lambda x, A, B, s: x + s * torch.einsum("bnd,rd,or->bno", x, A, B)
            )
        ),
        ("x in place", "changed in place"): adapter_class(
            forward=lambda x, A, B, s: x.add_((s * x @ A.T @ B.T).detach())
        ),
    },
    "3.2": {
        ("before the residual split", "before the residual split"): lambda b, a, x: b(a(x)),
        ("before the norm", "before the norm"): lambda b, a, x: x + b.attention(b.norm(a(x))),
        ("on the output", "is on the output"): lambda b, a, x: x + a(b.attention(b.norm(x))),
        ("on the whole output", "whole output of the block"): lambda b, a, x: a(b(x)),
        ("only q", "only q is adapted"): lambda b, a, x: (
            x + b.attend(b.q(a(b.norm(x))), b.k(b.norm(x)), b.v(b.norm(x)))
        ),
        ("residual lost", "residual is lost"): lambda b, a, x: b.attention(a(b.norm(x))),
        ("added twice", "go in twice"): lambda b, a, x: x + b.attention(b.norm(x) + a(b.norm(x))),
        ("no norm", "norm is left out"): lambda b, a, x: x + b.attention(a(x)),
        ("twice", "acts twice"): lambda b, a, x: x + b.attention(a(a(b.norm(x)))),
        ("no adapter", "never used"): lambda b, a, x: b(x),
        ("beside attention", "belong inside attention"): lambda b, a, x: (
            x + a(b.norm(x)) + b.attention(b.norm(x))
        ),
        ("the stream too", "the stream is adapted as well"): lambda b, a, x: (
            a(x) + b.attention(a(b.norm(x)))
        ),
        ("no gradient", "no gradient reaches"): lambda b, a, x: torch.no_grad()(
            lambda: x + b.attention(a(b.norm(x)))
        )(),
        ("tokens detached", "cut off"): lambda b, a, x: x + b.attention(a(b.norm(x).detach())),
        ("a hook that stays", "by a hook"): hooked,
        ("x in place", "changed in place"): add_to_x,
        ("q plain", "q reads plain tokens"): reading("q"),
        ("k plain", "k reads plain tokens"): reading("k"),
        ("v plain", "v reads plain tokens"): reading("v"),
        ("behind q, k and v", "behind q, k and v"): behind_q_k_v,
        ("the whole block", "a residual of its own: call"): lambda b, a, x: b(a(b.norm(x))),
        ("x and the whole block", "x is added twice"): lambda b, a, x: x + b(a(b.norm(x))),
        ("two norms", "norm acts twice"): lambda b, a, x: x + b.attention(b.norm(a(b.norm(x)))),
        ("a copied adapter", "copies"): lambda b, a, x: (
            x + b.attention(copy.deepcopy(a)(b.norm(x)))
        ),
        ("the block in eval mode", "in its mode"): in_eval_mode,
        ("the stream alone", "only the stream is adapted"): lambda b, a, x: (
            a(x) + b.attention(b.norm(x))
        ),
    },
    "3.3": {
        ("LoRA's merge", "that is LoRA"): lambda W, A, B, s: W + s * B @ A,
        ("wrong side", "order is turned round"): lambda W, A, B, s: (
            (torch.eye(len(W)) + s * B @ A) @ W
        ),
        ("I forgotten", "the I is forgotten"): lambda W, A, B, s: s * W @ B @ A,
        ("transposed", "swapped or transposed"): lambda W, A, B, s: (
            W @ (torch.eye(W.shape[1]) + s * A.T @ B.T)
        ),
        ("in place", "changed in place"): lambda W, A, B, s: W.add_(s * W @ B @ A),
        ("scale forgotten", "the scale is forgotten"): lambda W, A, B, s: W + W @ B @ A,
        ("scale on W too", "multiplies W too"): lambda W, A, B, s: s * (W + W @ B @ A),
        ("scale over rank", "divided by the rank"): lambda W, A, B, s: W + s / len(A) * W @ B @ A,
        ("scale twice", "applied twice"): lambda W, A, B, s: W + s * s * W @ B @ A,
        ("the result transposed", "result is transposed"): lambda W, A, B, s: (W + s * W @ B @ A).T,
        ("1 for I", "adds one to every entry"): lambda W, A, B, s: W @ (1 + s * B @ A),
        ("by entries", "multiplies entry by entry"): lambda W, A, B, s: (
            W * (torch.eye(len(B)) + s * B @ A)
        ),
        ("subtracted", "is subtracted"): lambda W, A, B, s: W - s * W @ B @ A,
        ("scale over s", "none of the usual slips"): lambda W, A, B, s: W + W @ B @ A / s,
        ("A B", "tensors of different shapes"): lambda W, A, B, s: (
            W @ (torch.eye(W.shape[1]) + A @ B)
        ),
    },
    "3.4": {
        ("fresh outputs", "fill B first"): lambda a, x: bool((a(x) != a.block(x)).any()),
        ("always True", "never reaches the output"): lambda a, x: True,
        ("parameters, not outputs", "compare outputs, not"): lambda a, x: any(
            "lora" in name for name, _ in a.named_parameters()
        ),
        ("in place", "work on copy.deepcopy"): effect_in_place,
        ("names rebound", "only gives the name to another"): effect_with_names_rebound,
        ("turned round", "turned round"): lambda a, x: not right_effect(a, x),
        ("too loose", "tolerance is too loose"): close_effect,
        ("all parameters", "nothing of the base"): effect_of_all,
        ("a tensor", "a plain True or False"): lambda a, x: torch.tensor(True),
    },
    "3.5": {
        ("B not filled", "fill B first"): lambda a, x: right_residual(a, x, fill=False),
        ("bias left", "set weight and bias"): lambda a, x: right_residual(a, x, bias=False),
        ("attention not silenced", "still adds something"): lambda a, x: bool(torch.equal(a(x), x)),
        ("in place", "work on copy.deepcopy"): lambda a, x: right_residual(a, x, copied=False),
        ("turned round", "turned round"): lambda a, x: not right_residual(a, x),
        ("too loose", "tolerance is too loose"): lambda a, x: right_residual(a, x, tolerance=10),
        ("method replaced", "silence attention at block.out"): residual_without_attention,
    },
    "3.6": {
        ("both matrices", "both matrices"): lambda a: sum(
            "lora" in name for name, _ in a.named_parameters()
        ),
        ("names", "three names is still one"): lambda a: sum("lora_A" in n for n in a.state_dict()),
        ("elements", "elements"): lambda a: sum(
            p.numel() for n, p in a.named_parameters() if "lora" in n
        ),
        ("all parameters", "own weights are counted"): lambda a: len(list(a.parameters())),
        ("always one", "1 for every block"): lambda a: 1,
        ("by their numbers", "equal numbers are taken for one"): lambda a: len(
            {p.sum().item() for n, p in a.named_parameters() if "lora_A" in n}
        ),
        ("a half", "right in value, but a float"): lambda a: (
            sum("lora" in name for name, _ in a.named_parameters()) / 2
        ),
    },
}
