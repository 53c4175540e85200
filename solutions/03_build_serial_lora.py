# %% [markdown]
# # 03 · Build Serial LoRA
#
# A colleague sends you code that is meant to put Serial LoRA into CLIP. It runs without an error, and the loss falls. But
# is it Serial LoRA? PyTorch cannot tell you, because it accepts an adapter almost anywhere: in the attention half of a
# transformer block alone there are six places.
#
# You will answer with a test. After training, Serial LoRA can be **merged**: a matrix product writes what it learnt into
# weights of the block. Then the adapter can go, and the block's answers stay the same. Other methods can be merged, too,
# but into other weights. You build the adapter, try all six places, and put it into a CLIP that somebody else wrote.

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

# %% [markdown]
# Here are the six places, and your colleague's code. (Place 4 has an adapter for each of q, k and v.) Guess, in the last
# line: at which places can an adapter be merged?

# %%
display_drawing("six_places")


def inject_behind(model: nn.Module, adapter: type[nn.Module], rank: int) -> list[nn.Module]:
    """Your colleague's code."""
    model.requires_grad_(False)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)]
    for layer in layers:
        layer.serial_lora = adapter(layer.embed_dim, rank)
        layer.register_forward_hook(lambda layer, args, out: (layer.serial_lora(out[0]), *out[1:]))
    return [layer.serial_lora for layer in layers]


guess = set()  # your guess, such as {1, 2}

# %% [markdown]
# ## A block that you can read
#
# The class below is the drawing as code. Its input, `x`, is the **residual stream**: it runs through the whole model, and
# every block only *adds* to it. (The other half of a block, the MLP, is left out.) Read `forward` first, then go upwards.


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
# ## The adapter, and how it is merged
#
# Serial LoRA changes the tokens once, before q, k and v read them:
#
# $$x' = x + s\,(x A^\top) B^\top, \qquad
# q = x' W_q^\top,\quad k = x' W_k^\top,\quad v = x' W_v^\top$$
#
# The class below is this line from lesson 00. `A` takes each token down to r numbers, `B` brings it back up to d, and the
# scale s is a plain number, here 1. `B` starts at zero, so a fresh adapter changes nothing.
#
# ### Exercise 3.1 · The merged weight
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 6 |
#
# A merged model has nothing extra to run, and whoever gets it needs none of your code. Write `merged`: it gets the weight
# of a layer that reads adapted tokens, and returns the one weight that does both steps at once. Which of the two
# acts on a token first?


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
# As a column, a token x becomes (I + s B A) x first, and then W (I + s B A) x.
#
# </details>
# <details><summary>Hint 2: without the big matrix</summary>
#
# W (I + s B A) = W + s (W B) A, where W B is only (out, r). Make a new tensor: `+=` would change W.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)
#
# ## One place is Serial LoRA's
#
# So $W_q$, $W_k$ and $W_v$ become $W\,(I + s\,BA)$, all three with the same $BA$, and nothing else in the block changes.
# As $W + s\,(WB)A$, this is a LoRA on each of the three, with one A for all, and $WB$ in place of its own B. The paper
# defines Serial LoRA by these three weights (section II.D), so its place is the one that gives exactly them.
#
# ### Exercise 3.2 · The right place
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 4 |
#
# Without an adapter, a block computes `x + block.attention(block.norm(x))`. Put one call of `adapter` into this line, so
# that the block computes what it would with the three merged weights. Follow one token: what exactly does $W_q$ multiply?


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
# <details><summary>Hint 1: the end of the line</summary>
#
# The `x` that is added at the end is never multiplied by W_q, W_k or W_v, so the adapter must not change it.
#
# </details>
# <details><summary>Hint 2: what W reads</summary>
#
# W (I + B A) times a token is W times (I + B A) times that token. So the adapter has to act directly on what W reads.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)
#
# ## Six places that train
#
# The next cell builds all six, in the drawing's order. Place 3 is yours.

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
    "one each": Wired(one_each, pairs=3),
    "behind attention": Wired(lambda b, pair, x: x + pair(b.attention(b.norm(x)))),
    "behind the sum": Wired(lambda b, pair, x: pair(b(x))),
}
unchanged = all(torch.equal(adapted(x), block(x)) for adapted in wirings.values())
print("with fresh pairs, all six give exactly what the plain block gives:", unchanged)

# %% [markdown]
# Does training tell the six apart? Train a new classifier behind each block, together with the pairs, on random labels. In
# which of the six will the loss fall least?


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


least = ""  # your guess, such as "yours"
losses, plain = {}, Wired(lambda b, x: b(x), pairs=0)
for name, adapted in {**wirings, "no adapter": plain}.items():
    losses[name] = losses_of(copy.deepcopy(adapted))
    print(f"{name:16} from {losses[name][0]:.2f} to {losses[name][-1]:.2f}")
print("your guess:", least or "none")

# %% [markdown]
# It falls least behind attention. But all six end below the classifier alone, which can memorise labels, too. So all six
# adapters learn, and a falling loss does not tell you which of them is Serial LoRA. Test the definition.
#
# ### Exercise 3.3 · Can it be merged?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# Write the test. Once the pairs are written into the weights of the block, does the block alone compute what it computed
# with them? `write` does the writing, and `torch.allclose(..., atol=1e-5)` compares up to rounding. Leave what you are
# given as it is. There is one trap: which blocks would pass with a *fresh* pair?


# %% tags=["exercise", "idea"]
def can_be_merged(wired: nn.Module, write: Callable, x: torch.Tensor) -> bool:
    """Whether the pairs of a block can be written into its weights.

    Args:
        wired: `.block` is its block, which by itself calls no pair; each of its `.pairs` has
            lora_A and lora_B, and may be fresh.
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


check("3.3", can_be_merged)

# %% [markdown]
# <details><summary>Hint 1: the steps</summary>
#
# Copy, give each `lora_B` random numbers, run the copy, write, run the copy's `.block`, compare.
#
# </details>
# <details><summary>Hint 2: the trap, and writing into a parameter</summary>
#
# While `B` is zero, every pair passes. Under `torch.no_grad()`, `pair.lora_B.normal_(std=0.1)` writes into
# the parameter, while `lora_B = ...` would only give a tensor a name.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)
#
# Now run your test on all six places, with two ways of writing: into the three weights that the paper names, and into
# $W_o$ and its bias. Each drawing comes from a run: a pair stands where it was called, and what it changes is orange.

# %%
can_merge = yours("3.3")


@torch.no_grad()
def into_qkv(block: nn.Module, pairs: nn.ModuleList) -> None:
    for i, layer in enumerate((block.q, block.k, block.v)):
        pair = pairs[i % len(pairs)]  # one for all, or one for each
        layer.weight.copy_(pair.merged(layer.weight))


@torch.no_grad()
def write_behind(layer: nn.Linear, pair: nn.Module) -> None:
    """(I + s B A) (W z + b): a pair behind a layer acts on each column of W, and on b."""
    layer.weight.copy_(pair(layer.weight.T).T)
    layer.bias.copy_(pair(layer.bias))


def into_out(block: nn.Module, pairs: nn.ModuleList) -> None:
    for pair in pairs:
        write_behind(block.out, pair)


said, found = {}, set()
for place, (name, adapted) in enumerate(wirings.items(), 1):
    answers = [can_merge(adapted, write, x) for write in (into_qkv, into_out)]
    found |= {place} if any(answers) else set()
    said[name] = (
        adapted,
        {
            "its loss falls": losses[name][-1] < losses[name][0],
            "merges into $W_q$, $W_k$, $W_v$": answers[0],
            "merges into $W_o$ and its bias": answers[1],
            f"{sum(p.numel() for p in adapted.pairs.parameters()):,} parameters": None,
        },
    )
print(f"places where one of these two ways works: {found}; your guess: {guess or 'none'}")
display_figure(figures.plot_wirings(said, x))

# %% [markdown]
# The test passes at three places. At 1, 2 and 6 both ways of writing fail, but might a third work? Look at what a
# block *adds* to x. The norm takes away each token's mean and divides by its spread, and all weights act after that. So
# whatever its weights are, a plain block adds the same to x, to 10x and to x + 10, up to rounding. Which of the six break
# this rule, once `B` is not zero? No weights can imitate a block that does. (0.0 means kept. 1.0 means that the added part
# changes by its own length.)

# %%
torch.manual_seed(0)
print(f"{'what it adds changes by':24}", f"{'at 10x':>8}", f"{'at x + 10':>10}")
for place, (name, adapted) in enumerate({"no adapter": plain, **wirings}.items()):
    probed = copy.deepcopy(adapted)
    with torch.no_grad():
        for pair in probed.pairs:
            pair.lora_B.normal_(std=0.1)
        added, *others = (probed(tokens) - tokens for tokens in (x, 10 * x, x + 10))
    large, shifted = ((other - added).norm() / added.norm() for other in others)
    print(f"{place or ' '} {name:22} {large:8.1f} {shifted:10.1f}")

# %% [markdown]
# At places 1, 2 and 6 no weights of this block can replace the pair: any plain block gives 0.0 twice, and these do not. At
# place 2 the norm still removes the size of x. But the pair reads the token with its mean, and turns the 10 that was added
# to x into a direction that the norm does not remove.
#
# At place 4 each pair merges into its own weight, but there are three, with 1,536 parameters in place of 512. That is LoRA
# in other coordinates: $W_q + (W_q B_q) A_q$ has $W_q B_q$ as its B, and so for k and v. Place 5 is another method again, because q, k and v
# of this block never see its change. **Only place 3 has one pair that merges into all three of q, k and v. It is Serial
# LoRA**, with a third of place 4's parameters.
#
# ## Into a CLIP that somebody else wrote
#
# The course ships a small CLIP in open_clip's code, pretrained on drawings and their names. Here it has to sort drawings
# into eight classes, each of which it knows by one sentence. You may not touch its code: no subclass, no copied forward
# pass. The first cell shows one drawing of each class, and CLIP's answer. The second looks at what attention receives:
# `register_forward_pre_hook` calls a function of yours with a layer's arguments, just before that layer runs.

# %%
from serial_lora_course.data.registry import load_classification
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.pictures import show_pictures

backbone, data = load_clip(), load_classification("travel")
clip = backbone.model.requires_grad_(False)
sentences = data.prompts()
classes = encode_prompts(clip, backbone.tokenizer(sentences))  # (8, d)


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


print(len(train_labels), "training drawings; a sentence:", sentences[0])
print(f"before: {number_right(scores(clip))} of {len(test_labels)} test drawings right;", end=" ")
print("always the commonest class:", (test_labels == train_labels.mode().values).sum().item())
shown = [39, 51, 47, 11, 3, 58, 73, 0]
answers = scores(clip).argmax(dim=-1)
titles = [
    f"{data.class_names[test_labels[i]]}\nCLIP: {data.class_names[answers[i]]}" for i in shown
]
display_figure(show_pictures([picture for picture, _ in data.test.some(shown)], titles))


# %%
def look(layer, args, kwargs):
    """Print what a layer is called with, and change nothing."""
    q, k, v = args
    print("q:", tuple(q.shape), "| one tensor three times:", q is k is v, "| by name:", kwargs)
    print("q is what ln_1 returned:", q is normed[0])


first, normed = clip.visual.transformer.resblocks[0], []
print("in_proj_weight:", tuple(first.attn.in_proj_weight.shape))
handles = [
    first.ln_1.register_forward_hook(lambda layer, args, output: normed.append(output)),
    first.attn.register_forward_pre_hook(look, with_kwargs=True),
]
scores(clip)
for handle in handles:
    handle.remove()

# %% [markdown]
# The call of `attn` is place 3: `nn.MultiheadAttention` receives the normed tokens three times, as q, k and v. Its
# `in_proj_weight` is $W_q$, $W_k$ and $W_v$, one above the other: 576 rows that all multiply the same tokens. So one call
# of your `merged` writes a pair into all three.
#
# ### Exercise 3.4 · The way back
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 6 |
#
# Write `merged_copy`. In a copy of a whole model, each `nn.MultiheadAttention` gets its pair, merged into
# `in_proj_weight`. The model that you are given stays as it is.


# %% tags=["exercise"]
def merged_copy(model: nn.Module, pairs: list[nn.Module]) -> nn.Module:
    """A plain copy of a model, whose attentions hold what the pairs learnt.

    Args:
        model: without pairs and hooks.
        pairs: one for each nn.MultiheadAttention, in the order of `model.modules()`; each has
            `merged`, as your class of exercise 3.1 does.
    """
    # BEGIN SOLUTION
    plain = copy.deepcopy(model)
    layers = [layer for layer in plain.modules() if isinstance(layer, nn.MultiheadAttention)]
    with torch.no_grad():
        for layer, pair in zip(layers, pairs, strict=True):
            layer.in_proj_weight.copy_(pair.merged(layer.in_proj_weight))
    return plain
    # END SOLUTION


check("3.4", merged_copy)

# %% [markdown]
# <details><summary>Hint 1: find the layers in the copy</summary>
#
# Use `copy.deepcopy`, and `isinstance` over the `modules()` of the copy.
#
# </details>
# <details><summary>Hint 2: write into a parameter</summary>
#
# Under `torch.no_grad()`, `weight.copy_(new)` overwrites the numbers of a parameter.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)
#
# To put the pairs in, use the hook again: a pre-hook that *returns* a tuple replaces the arguments of its layer. Without
# `with_kwargs=True` it takes `(layer, args)`, and arguments that are passed by name stay as they are.
#
# ### Exercise 3.5 · `inject`, by you
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●●○ | ●●●●● | 25 |
#
# Write a function that puts pairs into *any* model that hands q, k and v to `nn.MultiheadAttention` by position, without
# knowing the name of any layer:
#
# 1. freeze everything that is there;
# 2. find every `nn.MultiheadAttention`, at any depth; its `embed_dim` is its width, and widths may differ;
# 3. assign a pair to each as an attribute, so that the model's `parameters()` and `state_dict()` know it;
# 4. give each a pre-hook that computes the adapted tokens once and passes them on as q, k and v;
# 5. return the pairs, in the order of `model.modules()`.
#
# Raise a `ValueError` in three cases that go wrong silently: a model without such attention, where
# nothing would learn; a second call for the same model, which would throw the first pairs away; and, in the hook,
# attention whose q, k and v are not the same tokens, such as *cross-attention*, where the others would be lost. Begin
# with steps 1, 2 and 5, and let the check tell you what is missing.


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
# Collect the layers into a list before you add modules to the model, and freeze the model before the pairs come in.
#
# </details>
# <details><summary>Hint 2: the hook</summary>
#
# `def adapt_tokens(layer, args)` can take its pair from its layer: `tokens = layer.serial_lora(args[0])`. In
# self-attention `args[1]` and `args[2]` *are* `args[0]`, one tensor. A hook that is defined in the loop and uses `pair`
# finds the *last* pair, because Python looks the name up when the hook runs.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)
#
# ## Your answer
#
# Your colleague's code, in the first cell, registers a *forward* hook, which runs after attention. The last layer of
# `nn.MultiheadAttention` is $W_o$, so the pair acts behind it: place 5. Put both into copies of CLIP, and give both the
# same twenty steps, with three seeds.


# %%
def train(model: nn.Module, pairs: list[nn.Module]) -> None:
    optimizer = torch.optim.AdamW([p for pair in pairs for p in pair.parameters()], lr=3e-3)
    for _ in range(20):
        chosen = torch.randint(len(train_labels), (32,))
        features = model.encode_image(train_pictures[chosen], normalize=True)  # (32, d)
        logits = model.logit_scale.exp() * features @ classes.T  # (32, 8)
        loss = F.cross_entropy(logits, train_labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


adapted = {}
for whose, put_in in {"yours": yours("3.5"), "your colleague's": inject_behind}.items():
    fresh, right = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        model = copy.deepcopy(clip)
        pairs = put_in(model.visual, Adapter, rank=16)
        fresh.append(number_right(scores(model)))
        train(model, pairs)
        right.append(number_right(scores(model)))
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{whose}: {len(pairs)} pairs, {trainable:,} parameters learn;", end=" ")
    print(f"right of {len(test_labels)}: fresh {fresh}, trained {right}")
    adapted[whose] = model, pairs  # of the last seed


# %% [markdown]
# Merge yours into $W_q$, $W_k$ and $W_v$, and your colleague's once into these and once into $W_o$. Which
# of the three plain copies will give the same scores as with the pairs? And how exact is a merge? The last lines merge
# yours once more, with all numbers held in 64, 32 and 16 bits.

# %%
merged_qkv = yours("3.4")


def merged_out(model: nn.Module, pairs: list[nn.Module]) -> nn.Module:
    """As merged_copy, but into the layer at the end of each attention."""
    plain = copy.deepcopy(model)
    layers = [layer for layer in plain.modules() if isinstance(layer, nn.MultiheadAttention)]
    for layer, pair in zip(layers, pairs, strict=True):
        write_behind(layer.out_proj, pair)
    return plain


beside = {}
for whose, merge, where in (
    ("yours", merged_qkv, "$W_q$, $W_k$, $W_v$"),
    ("your colleague's", merged_qkv, "$W_q$, $W_k$, $W_v$"),
    ("your colleague's", merged_out, "$W_o$"),
):
    model, pairs = adapted[whose]
    plain = copy.deepcopy(clip)
    plain.visual = merge(clip.visual, pairs)
    before, after = scores(model), scores(plain)
    distance = (before - after).norm() / before.norm()
    said = f"{number_right(before)} right, merged {number_right(after)}; {distance:.1g} apart"
    beside[f"{whose}, into {where}\n{said}"] = before, after
display_figure(figures.plot_agreement(beside))

block, pair, x = clip.visual.transformer.resblocks[0], adapted["yours"][1][0], normed[0]
for dtype in (torch.float64, torch.float32, torch.bfloat16):
    W, p, tokens = block.attn.in_proj_weight.to(dtype), copy.deepcopy(pair).to(dtype), x.to(dtype)
    with torch.no_grad():
        before, after = p(tokens) @ W.T, tokens @ p.merged(W).T  # (N, 37, 576)
    print(f"{dtype}: q, k and v are {(before - after).norm() / before.norm():.0e} apart")

# %% [markdown]
# Each dot is one drawing's score for one class, and on the diagonal the plain copy agrees with the adapted model. Yours
# agrees: all that your pairs learnt is now in $W_q$, $W_k$ and $W_v$. The rest is rounding: in the first block it shrinks
# with more bits. Your colleague's, merged as Serial LoRA, is another model, with 34 right in place of 55: what it had
# learnt is gone. Merged into $W_o$, it agrees.
#
# So here is your answer: the code learns, and it can be merged, but it is not Serial LoRA. Each of its pairs changes what
# comes out of attention, and nothing that q, k and v of the same block read. So report its results under another name.
# As an adapter it is not worse: it is ahead of yours with each of three seeds, on one data set and at one learning rate,
# which says little. From lesson 04 on, each method gets its own rate.
#
# Later lessons take `inject` from the course's library. Up to rounding, it makes the same model from your pairs:

# %%
from serial_lora import SerialLoRAConfig, adapters, inject

mine, pairs = adapted["yours"]
library = copy.deepcopy(clip)
inject(library, SerialLoRAConfig(rank=len(pairs[0].lora_A), towers=["image"]))
for pair, theirs in zip(pairs, adapters(library).values(), strict=True):
    theirs.load_state_dict(pair.state_dict())
distance = (scores(mine) - scores(library)).norm() / scores(mine).norm()
print(f"the library's scores and yours are {distance:.0e} apart")

# %% [markdown]
# ## Quiz
#
# **1. A fresh adapter gives exactly the base's answers. Does that prove that it is built right?**
#
# <details><summary>Answer</summary>
#
# No. All six places pass, and so would a pair that is never called. In the outputs, only a `B` that is not zero shows
# where a pair acts.
#
# </details>
#
# **2. Somebody puts a ReLU between A and B. Can this adapter be merged at place 3?**
#
# <details><summary>Answer</summary>
#
# No. With the ReLU the change is no matrix times the token, and only a matrix can be multiplied into a weight.
#
# </details>
#
# **3. Why does a merge at place 5 change a bias, and one at place 3 none?**
#
# <details><summary>Answer</summary>
#
# At place 3 the pair acts before W: W (I + s B A) x + b. At place 5 it acts after the layer, on W z + b.
#
# </details>
#
# ## What to remember
#
# - Serial LoRA is x + s x Aᵀ Bᵀ: behind the norm, before q, k and v, off the residual stream.
# - It turns W_q, W_k and W_v into W (I + s B A), with one pair. Other methods may merge too.
# - A falling loss shows that something learns. Test the definition, with a `B` that is not zero.
#
# Next: [04 · CLIP with a few shots](04_clip_few_shot.ipynb), where these pairs meet LoRA.
