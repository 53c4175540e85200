# %% [markdown]
# # 03 · Build Serial LoRA
#
# A colleague sends you code that puts Serial LoRA into CLIP. It runs without an error, and the loss falls. Is it Serial
# LoRA? PyTorch cannot tell you. Below is the attention half of a transformer block, and PyTorch accepts an adapter at
# each of the six places. (At place 4 each path has one of its own.)
#
# After training, Serial LoRA **vanishes**: what it learnt is multiplied into the block's weights, and the block computes
# the same without it. At which of the six places can an adapter vanish? Guess, in the last line of the next cell. You
# build the adapter, try all six, and put it into a CLIP whose code somebody else wrote. There you answer your colleague.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.lessons.l03_build import figures
from serial_lora_course.plots.style import display_drawing, display_figure

lesson_card("03")
display_drawing("six_places")
guess = {3}  # your guess: the places at which an adapter can vanish

# %% [markdown]
# ## A block that you can read
#
# Here is the drawing as code. The input, `x`, is the **residual stream**: it runs through the whole model, and every
# block only *adds* to it. (The other half of a block, the MLP, is left out.) Start reading at `forward`, and go upwards.


# %% tags=["idea"]
class SmallBlock(nn.Module):
    """x + out(attention(q, k, v)), where q, k and v read the normed x."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = q.shape  # (B, N, d)
        split = (batch, tokens, self.heads, width // self.heads)
        q, k, v = (t.view(split).transpose(1, 2) for t in (q, k, v))  # (B, heads, N, d / heads)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, heads, N, d / heads)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))  # (B, N, d)

    def attention(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.attend(self.q(tokens), self.k(tokens), self.v(tokens))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.attention(self.norm(x))


torch.manual_seed(0)
width, rank = 64, 4
x = torch.randn(2, 10, width)  # (B, N, d): 2 pictures, 10 tokens each
block = SmallBlock(width, heads=4).requires_grad_(False)  # as if pretrained: frozen

# %% [markdown]
# ## The adapter, and how it vanishes
#
# Serial LoRA changes the tokens once, before q, k and v read them:
#
# $$x' = x + s\,(x A^\top) B^\top, \qquad
# q = x' W_q^\top,\quad k = x' W_k^\top,\quad v = x' W_v^\top$$
#
# You know this line from lesson 00; as a module it is below. `A` takes each token down to r numbers, `B` brings it back
# up to d, and the scale s is a plain number, 1 in the paper. `B` starts at zero, so a fresh adapter changes nothing.
#
# ### Exercise 3.1 · The merged weight
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 6 |
#
# To **merge** is to write what the adapter learnt into the weights. The model is then as fast as before, and whoever gets
# it needs none of your code. Write `merged`: for the weight of a layer that reads the adapted tokens, the one weight
# that does in one step what the adapter and then this layer do. Which of the two acts on a token first?


# %% tags=["exercise"]
class SerialAdapter(nn.Module):
    """x + scale * x Aᵀ Bᵀ.

    Args:
        width: d, the size of a token.
        rank: r, how many patterns the change can have.
        scale: what the change is multiplied by.
    """

    def __init__(self, width: int, rank: int, scale: float = 1.0):
        super().__init__()
        self.scale = scale
        self.lora_A = nn.Parameter(torch.randn(rank, width) / width**0.5)  # (r, d)
        self.lora_B = nn.Parameter(torch.zeros(width, rank))  # (d, r)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d) -> (..., d)"""
        return x + self.scale * (x @ self.lora_A.T @ self.lora_B.T)

    def merged(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight that takes a token as it is to where `weight` takes the adapted token.

        Args:
            weight: (out, d), as `nn.Linear` keeps it; it stays as it is.

        Returns:
            (out, d), a new tensor.
        """
        # BEGIN SOLUTION
        change = self.scale * (weight @ self.lora_B) @ self.lora_A  # (out, d)
        return weight + change
        # END SOLUTION


check("3.1", SerialAdapter)

# %% [markdown]
# <details><summary>Hint 1: follow one token</summary>
#
# As a column, a token x becomes (I + s B A) x first, and then W (I + s B A) x. What stands directly left of x acts first.
#
# </details>
# <details><summary>Hint 2: without the big matrix</summary>
#
# Multiply out: W (I + s B A) = W + s (W B) A. From the left, W B is only (out, r), and no (d, d) matrix is made. Either
# way is right. Write it as a new tensor: `+=` would change W.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)
#
# ## One place is Serial LoRA's
#
# So $W_q$, $W_k$ and $W_v$ become $W\,(I + s\,BA)$, all three with the same $BA$, and nothing else in the block changes.
# This is the paper's definition, and it decides the place.
#
# ### Exercise 3.2 · The right place
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 4 |
#
# Without an adapter a block computes `x + block.attention(block.norm(x))`. Put one call of `adapter` into it, so that the
# block computes what it would with these three weights. Follow one token: what exactly does $W_q$ multiply? If you
# choose another place, the check says which one it was.


# %% tags=["exercise"]
def adapted_forward(block: nn.Module, adapter: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Run an attention block with a Serial LoRA adapter in it.

    Args:
        block: has `norm` and `attention`, both (B, N, d) -> (B, N, d).
        adapter: (..., d) -> (..., d).
        x: (B, N, d), the residual stream.

    Returns:
        (B, N, d), the residual stream after the block.
    """
    # BEGIN SOLUTION
    tokens = adapter(block.norm(x))  # (B, N, d): what q, k and v all read
    return x + block.attention(tokens)
    # END SOLUTION


check("3.2", adapted_forward)

# %% [markdown]
# <details><summary>Hint 1: what may not change</summary>
#
# The `x` that is added at the end is never multiplied by W_q, W_k or W_v. So no change of these weights can reach it,
# and the adapter must not change it either.
#
# </details>
# <details><summary>Hint 2: what does change</summary>
#
# W (I + B A) times a token is W times (I + B A) times that token. So the adapter has to act on what W reads, and
# directly on that: a norm in between would rescale its change.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)
#
# ## Six places that train
#
# Here are all six, in the order of the drawing, yours among them.

# %% tags=["idea"]
Adapter, run_block = yours("3.1"), yours("3.2")


class Wired(nn.Module):
    """A frozen block and its pairs, run as `run(block, *pairs, x)` says."""

    def __init__(self, run: Callable, pairs: int = 1):
        super().__init__()
        self.run, self.block = run, copy.deepcopy(block)
        self.pairs = nn.ModuleList(Adapter(width, rank) for _ in range(pairs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self.block, *self.pairs, x)


def one_each(b, for_q, for_k, for_v, x):
    tokens = b.norm(x)
    return x + b.attend(b.q(for_q(tokens)), b.k(for_k(tokens)), b.v(for_v(tokens)))


torch.manual_seed(1)
wirings = {
    "on the stream": Wired(lambda b, pair, x: b(pair(x))),
    "before the norm": Wired(lambda b, pair, x: x + b.attention(b.norm(pair(x)))),
    "yours": Wired(run_block),
    "a pair each": Wired(one_each, pairs=3),
    "your colleague's": Wired(lambda b, pair, x: x + pair(b.attention(b.norm(x)))),
    "behind the sum": Wired(lambda b, pair, x: pair(b(x))),
}

# %% [markdown]
# Does training tell them apart? Put a new classifier behind each block and train the two together, as one usually does,
# on labels without meaning. Whose loss will not fall?


# %%
def losses_of(adapted: nn.Module, steps: int = 40) -> list[float]:
    """Train the adapter and a new classifier behind it, on random labels."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(64, 10, width), torch.randint(4, (64,))  # (B, N, d), (B,)
    head = nn.Linear(width, 4)
    trained = [p for p in (*adapted.parameters(), *head.parameters()) if p.requires_grad]
    optimizer, found = torch.optim.Adam(trained, lr=0.01), []
    for _ in range(steps):
        loss = F.cross_entropy(head(adapted(inputs).mean(dim=1)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


losses = {}
for name, adapted in {**wirings, "no adapter": Wired(lambda b, x: b(x), pairs=0)}.items():
    losses[name] = losses_of(copy.deepcopy(adapted))
    print(f"{name:16} from {losses[name][0]:.2f} to {losses[name][-1]:.2f}")

# %% [markdown]
# It falls at all six, and without any adapter too, since the classifier alone learns something. A falling loss says that
# *something* learns, and not what. So test the definition.
#
# ### Exercise 3.3 · Does it vanish?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# Write the test. Does the block alone, once the pairs are written into its weights, compute what it computed with them?
# `write` does the writing; compare with `torch.allclose(..., atol=1e-5)`, for rounding. What you are given stays as it
# is. Mind the trap: which blocks pass with a *fresh* pair?


# %% tags=["exercise", "idea"]
def vanishes(wired: nn.Module, write: Callable, x: torch.Tensor) -> bool:
    """Whether the pairs of a block can be written into its weights.

    Args:
        wired: has `.block`, which calls no pair when it runs alone, and `.pairs`, with lora_A and
            lora_B; they may be fresh.
        write: `write(block, pairs)` changes the weights of the block, in place.
        x: (B, N, d).
    """
    # BEGIN SOLUTION
    trained = copy.deepcopy(wired)
    with torch.no_grad():
        for pair in trained.pairs:
            pair.lora_B.normal_(std=0.1)
        adapted = trained(x)
        write(trained.block, trained.pairs)
        alone = trained.block(x)
    return torch.allclose(alone, adapted, atol=1e-5)
    # END SOLUTION


check("3.3", vanishes)

# %% [markdown]
# <details><summary>Hint 1: the steps</summary>
#
# Take a copy, give each `lora_B` random numbers, run the copy, write, run the copy's `.block`, compare.
#
# </details>
# <details><summary>Hint 2: the trap, and writing into a parameter</summary>
#
# While `B` is zero, adapted, merged and plain block are all the same, wherever the pair is. Under `torch.no_grad()`,
# `pair.lora_B.normal_(std=0.1)` writes into the parameter; `lora_B = ...` would only give a tensor a name.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)
#
# ### Exercise 3.4 · Your colleague's way out
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●○○ | 6 |
#
# To be fair to your colleague, whose pair comes *behind* $W_o$, a layer with weight and bias: which weight and bias would
# this layer need, to give at once what the pair makes of its output?


# %% tags=["exercise"]
def merged_behind(
    pair: nn.Module, weight: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias that do what a layer and then a pair do.

    Args:
        pair: has lora_A (r, d), lora_B (d, r) and scale.
        weight: (d, in), as `nn.Linear` keeps it.
        bias: (d,)

    Returns:
        (d, in) and (d,), new tensors.
    """
    # BEGIN SOLUTION
    change = pair.scale * pair.lora_B @ pair.lora_A  # (d, d)
    return weight + change @ weight, bias + change @ bias
    # END SOLUTION


check("3.4", merged_behind)

# %% [markdown]
# <details><summary>Hint 1: follow one token again</summary>
#
# As a column, z becomes W z + b first, and then (I + s B A) (W z + b). Multiply out.
#
# </details>
# <details><summary>Hint 2: the order</summary>
#
# The pair acts last, so its matrix stands on the left: W + (s B A) W. The bias passes through it too.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)
#
# Now your test on all six, with two ways of writing: into the three weights that the paper names, and into $W_o$. Each
# drawing comes from a run: a pair stands where it was called, and what it changes is orange.

# %%
can_vanish, behind = yours("3.3"), yours("3.4")


@torch.no_grad()
def into_qkv(block: nn.Module, pairs: nn.ModuleList) -> None:
    for i, layer in enumerate((block.q, block.k, block.v)):
        pair = pairs[i % len(pairs)]  # one for all, or one for each
        layer.weight.copy_(pair.merged(layer.weight))


@torch.no_grad()
def into_out(block: nn.Module, pairs: nn.ModuleList) -> None:
    for pair in pairs:
        new = behind(pair, block.out.weight, block.out.bias)
        for old, values in zip((block.out.weight, block.out.bias), new, strict=True):
            old.copy_(values)


said, found = {}, set()
for place, (name, adapted) in enumerate(wirings.items(), 1):
    answers = [can_vanish(adapted, write, x) for write in (into_qkv, into_out)]
    found |= {place} if any(answers) else set()
    said[name] = (
        adapted,
        {
            f"loss falls to {losses[name][-1]:.2f}": losses[name][-1] < losses[name][0],
            "vanishes in $W_q$, $W_k$, $W_v$": answers[0],
            "vanishes in $W_o$ and its bias": answers[1],
            f"{sum(p.numel() for p in adapted.pairs.parameters()):,} parameters": None,
        },
    )
print(f"places at which it vanishes: {found}; your guess: {guess}")
display_figure(figures.plot_wirings(said, x))

# %% [markdown]
# It vanishes at three. At places 1 and 6 the pair changes the stream, which no weight of the block multiplies. At
# place 2 the norm comes behind the pair: it divides each token by its own spread, and no weight can stand in for a
# change before that.
#
# At place 4 each pair vanishes in its own W, but there are three: another method, with three times the parameters.
# Your colleague's vanishes too, in $W_o$: another method, since q, k and v never see its change. **One pair that
# vanishes in all three of q, k and v: of these six only place 3 gives that, and it is Serial LoRA.**
#
# **Change this and run again**: make yours `Wired(lambda b, pair, x: b(x))`, which never calls its pair. (A module under
# a wrong name, `block.query` for `block.q`, does the same.) Which rows of the picture notice?
#
# <details><summary>Answer</summary>
#
# Those of the test: it vanishes nowhere, for what is written changes a block that the pair never changed. The first
# row still says that the loss falls. It falls as far as without an adapter.
#
# </details>
#
# ## Into a CLIP that somebody else wrote
#
# So far all weights were random. The course ships a small CLIP: the code is open_clip's, and we trained it to match
# drawings with their names. We want it to sort drawings that it has never seen into eight classes, without touching its
# code: no subclass, no copied forward pass. Look before you build: what does its attention receive?
# `register_forward_pre_hook` calls a function of yours with a layer's arguments, just before that layer runs.

# %%
from serial_lora_course.data.registry import load_classification
from serial_lora_course.models.clip import encode_prompts, load_clip

backbone, data = load_clip(), load_classification("travel")
clip = backbone.model.requires_grad_(False)
classes = encode_prompts(clip, backbone.tokenizer(data.prompts()))  # (8, d)


def opened(examples) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (N, 3, H, W) and labels (N,)."""
    pictures, labels = zip(*examples, strict=True)
    return torch.stack([backbone.test_transform(p) for p in pictures]), torch.tensor(labels)


(train_pictures, train_labels), (test_pictures, test_labels) = opened(data.train), opened(data.test)


@torch.no_grad()
def scores(model: nn.Module) -> torch.Tensor:
    """Of each test drawing, with the sentence of each class: (N, 8)."""
    return model.encode_image(test_pictures, normalize=True) @ classes.T


def number_right(scores: torch.Tensor) -> int:
    return (scores.argmax(dim=-1) == test_labels).sum().item()


def look(layer, args, kwargs):
    """Print what a layer is called with, and change nothing."""
    q, k, v = args
    print("q:", tuple(q.shape), "| one tensor three times:", q is k is v, "| by name:", kwargs)
    print("q is what ln_1 returned:", q is normed[0])


first, normed = clip.visual.transformer.resblocks[0], []
print(first)
handles = [
    first.ln_1.register_forward_hook(lambda layer, args, output: normed.append(output)),
    first.attn.register_forward_pre_hook(look, with_kwargs=True),
]
print(f"before: {number_right(scores(clip))} of {len(test_labels)} right;", end=" ")
print("always the commonest class:", (test_labels == train_labels.mode().values).sum().item())
for handle in handles:
    handle.remove()

# %% [markdown]
# The call of `attn` is place 3: PyTorch's own `nn.MultiheadAttention` receives the normalised tokens three times, as q,
# k and v. And a pre-hook can do more than look: if it *returns* a tuple, the layer gets that instead of its arguments.
# Without `with_kwargs=True` the hook takes `(layer, args)` and returns new `args`; arguments passed by name stay as
# they are.
#
# ### Exercise 3.5 · `inject`, by you
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●●○ | ●●●●● | 25 |
#
# Write a function that puts adapters into *any* model that hands q, k and v to `nn.MultiheadAttention` by position,
# without knowing the name of any layer:
#
# 1. freeze everything that is there;
# 2. find every `nn.MultiheadAttention`, at any depth; its `embed_dim` is its width, and widths may differ;
# 3. give each a pair, and assign the pair to the layer as an attribute, so that the model's `parameters()` and
#    `state_dict()` know it;
# 4. give the layer a pre-hook that computes the adapted tokens once and passes them on as q, k and v;
# 5. return the pairs, in the order of `model.modules()`.
#
# Raise a `ValueError` in three cases that would otherwise go wrong silently: a model without such attention, where
# nothing would be trained; a second call for the same model, which would adapt it twice; and, in the hook,
# *cross-attention*, whose k or v are other tokens than q, since step 4 would throw these away. All this takes about
# fifteen lines. Write steps 1, 2 and 5 first, and let the check tell you what is missing.


# %% tags=["exercise", "idea"]
def inject_pairs(model: nn.Module, adapter: type[nn.Module], rank: int) -> list[nn.Module]:
    """Freeze a model and put one Serial LoRA pair in front of q, k and v of each of its attentions.

    Args:
        model: changed in place.
        adapter: `adapter(width, rank)` makes a pair, as your class of exercise 3.1 does.
        rank: r.

    Returns:
        The pairs.

    Raises:
        ValueError: no nn.MultiheadAttention, or pairs are there already; when the model runs:
            q, k and v are not the same tokens.
    """
    # BEGIN SOLUTION
    layers = [layer for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)]
    if not layers:
        raise ValueError("This model has no nn.MultiheadAttention.")
    if any(name.endswith("lora_A") for name, _ in model.named_parameters()):
        raise ValueError("This model has adapters already.")

    def adapt_tokens(layer, args):
        q, k, v = args[:3]
        if q is not k or q is not v:
            raise ValueError("Cross-attention: q, k and v are not the same tokens.")
        tokens = layer.serial_lora(q)  # (B, N, d)
        return tokens, tokens, tokens, *args[3:]

    model.requires_grad_(False)  # before the pairs come in, so that they can learn
    for layer in layers:
        layer.serial_lora = adapter(layer.embed_dim, rank)
        layer.register_forward_pre_hook(adapt_tokens)
    return [layer.serial_lora for layer in layers]
    # END SOLUTION


check("3.5", inject_pairs)

# %% [markdown]
# <details><summary>Hint 1: the order of things</summary>
#
# Collect the layers into a list first, with `isinstance` over `model.modules()`: one should not add modules to a
# model while walking through it. Freeze next, with `model.requires_grad_(False)`. Then loop: make a pair of width
# `layer.embed_dim`, assign it as `layer.serial_lora`, register the hook.
#
# </details>
# <details><summary>Hint 2: the hook</summary>
#
# `def adapt_tokens(layer, args)` can take its pair from the layer that it is called with: `tokens =
# layer.serial_lora(args[0])`, and it returns `tokens, tokens, tokens`. Before that, compare: in self-attention
# `args[1]` and `args[2]` *are* `args[0]`, one tensor. If you define the hook inside the loop, and it uses `pair`, all
# hooks use the *last* pair, because Python looks the name up when the hook runs: so take it from the layer.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)

# %% [markdown]
# ## Your answer
#
# In your colleague's `inject` the hook runs *behind* attention. Put both into copies of CLIP, fresh first, and give both
# the same twenty steps.

# %%
inject_yours = yours("3.5")


def inject_behind(model: nn.Module, adapter: type[nn.Module], rank: int) -> list[nn.Module]:
    """Your colleague's."""
    model.requires_grad_(False)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)]
    for layer in layers:
        layer.serial_lora = adapter(layer.embed_dim, rank)
        layer.register_forward_hook(lambda layer, args, out: (layer.serial_lora(out[0]), *out[1:]))
    return [layer.serial_lora for layer in layers]


def train(model: nn.Module, pairs: list[nn.Module]) -> float:
    """Twenty steps; returns the last loss."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW([p for pair in pairs for p in pair.parameters()], lr=3e-3)
    for _ in range(20):
        chosen = torch.randint(len(train_labels), (32,))
        features = model.encode_image(train_pictures[chosen], normalize=True)  # (32, d)
        logits = model.logit_scale.exp() * features @ classes.T  # (32, 8)
        loss = F.cross_entropy(logits, train_labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


adapted = {}
for whose, put_in in {"yours": inject_yours, "your colleague's": inject_behind}.items():
    torch.manual_seed(0)
    model = copy.deepcopy(clip)
    pairs = put_in(model.visual, Adapter, rank=16)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{whose}: {len(pairs)} pairs, {trainable:,} parameters learn;", end=" ")
    print("fresh", number_right(scores(model)), end=" right, ")
    print(f"trained {train(model, pairs):.2f} loss, {number_right(scores(model))} right")
    adapted[whose] = model, pairs


# %% [markdown]
# Now the definition. In `nn.MultiheadAttention` the three weights are one tall matrix, of which every row multiplies the
# same tokens: one call of your `merged` writes all three. Merge yours into them, your colleague's into them, and your
# colleague's into $W_o$. Which of the three copies without pairs will give the scores that it gave with them?


# %%
def write_qkv(layer: nn.MultiheadAttention, pair: nn.Module) -> None:
    layer.in_proj_weight.copy_(pair.merged(layer.in_proj_weight))  # (3 d, d)


def write_out(layer: nn.MultiheadAttention, pair: nn.Module) -> None:
    weight, bias = behind(pair, layer.out_proj.weight, layer.out_proj.bias)
    layer.out_proj.weight.copy_(weight)
    layer.out_proj.bias.copy_(bias)


@torch.no_grad()
def without_pairs(pairs: list[nn.Module], write: Callable) -> nn.Module:
    """A plain copy of CLIP that holds what the pairs learnt."""
    plain = copy.deepcopy(clip)
    layers = [m for m in plain.visual.modules() if isinstance(m, nn.MultiheadAttention)]
    for layer, pair in zip(layers, pairs, strict=True):
        write(layer, pair)
    return plain


beside = {}
for whose, write, where in (
    ("yours", write_qkv, "$W_q$, $W_k$, $W_v$"),
    ("your colleague's", write_qkv, "$W_q$, $W_k$, $W_v$"),
    ("your colleague's", write_out, "$W_o$"),
):
    model, pairs = adapted[whose]
    before, after = scores(model), scores(without_pairs(pairs, write))
    said = f"{number_right(before)} right, then {number_right(after)}"
    distance = (before - after).norm() / before.norm()
    beside[f"{whose}, into {where}\n{said}; distance {distance:.0e}"] = before, after
display_figure(figures.plot_agreement(beside))

# %% [markdown]
# A dot is one drawing's score for one class. Yours lies on the diagonal: all that it learnt is in $W_q$, $W_k$ and $W_v$.
# Merged as Serial LoRA, your colleague's is another model, with 35 right in place of 48. It vanishes in $W_o$.
#
# So here is your answer: the code learns, in this run with five more right than yours, and it can be merged, but it is
# not Serial LoRA. It changes what attention gives; in its own block q, k and v read what they always read. Its results
# say nothing about Serial LoRA. (Which of the two is better, one run on 78 drawings cannot say.)
#
# Last, the course's library, which later lessons use. Is its `inject` yours? And is your merged CLIP a plain one?

# %%
from serial_lora import SerialLoRAConfig, adapters, inject

mine, pairs = adapted["yours"]
library = copy.deepcopy(clip)
inject(library, SerialLoRAConfig(rank=len(pairs[0].lora_A), towers=["image"]))
for pair, theirs in zip(pairs, adapters(library).values(), strict=True):
    theirs.load_state_dict(pair.state_dict())
distance = (scores(mine) - scores(library)).norm() / scores(mine).norm()
print(f"the library's inject, with your pairs: relative distance to yours {distance:.0e}")
plain = without_pairs(pairs, write_qkv)
counts = [len(model.state_dict()) for model in (clip, mine, plain)]
print("tensors in CLIP, in yours, in yours merged:", *counts)
print("a plain CLIP loads it:", copy.deepcopy(clip).load_state_dict(plain.state_dict()))

# %% [markdown]
# Up to rounding, the library makes the same model; it also knows the attention of SAM and of SD3. And your merged CLIP
# holds the tensors of a plain one, no more: it loads as an ordinary open_clip checkpoint.
#
# ## Quiz
#
# **1. A fresh adapter gives the base's answers exactly. Does that prove that it is built right?**
#
# <details><summary>Answer</summary>
#
# No. All six places pass, and so does a pair that is never called. Only a `B` that is not zero shows where it acts.
#
# </details>
#
# **2. Somebody puts a ReLU between A and B. Can this adapter vanish at place 3?**
#
# <details><summary>Answer</summary>
#
# No. The change is then no matrix times the token, and a weight can only be multiplied by a matrix. It may learn well;
# it stays in the model.
#
# </details>
#
# **3. Your hook takes its pair as an argument, `def adapt_tokens(layer, args, pair=pair)`, and you copy the adapted
# model with `copy.deepcopy`. Whose pairs does the copy use?**
#
# <details><summary>Answer</summary>
#
# The original's. `deepcopy` copies modules, but a function stays the same function, and this one holds the old pair.
# Train the copy, and its own pairs never move. A hook that asks its layer, `layer.serial_lora`, finds the copy's.
#
# </details>
#
# ## What to remember
#
# - Serial LoRA is x + s x Aᵀ Bᵀ: behind the norm, before q, k and v, off the residual stream.
# - It turns W_q, W_k and W_v into W (I + s B A), with one pair. Other adapters can be merged too, elsewhere.
# - A falling loss proves that something learns. Test the definition, with a `B` that is not zero.
# - `inject`: freeze the model, find its attentions, give each one pair and one pre-hook, refuse what does not fit.
#
# Next: [04 · CLIP with a few shots](04_clip_few_shot.ipynb), where you train these pairs on a few labelled pictures,
# and compare them with LoRA.
