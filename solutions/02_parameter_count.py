# %% [markdown]
# # 02 · The count, proved
#
# The paper on Serial LoRA (Zhong et al.) promises a quarter of LoRA's parameters. Below are the matrices of an
# attention block in CLIP's picture tower, to scale, with their pairs. Each filled square is as large as a pair.
#
# **How much less memory does training CLIP take?** Guess in the next cell's last line: with Serial LoRA in LoRA's place,
# by which share does it fall?

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch
from sympy import symbols  # PyTorch needs it too
from torch import Tensor, nn

from serial_lora import LoRAConfig, SerialLoRAConfig, inject
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.lessons.l02_count.figures import plot_kept, plot_memory, plot_quarter
from serial_lora_course.lessons.l02_count.measure import (
    MODELS,
    by_operation,
    clip_loss,
    picture_loss,
    with_peak,
)
from serial_lora_course.plots.style import display_figure

lesson_card("02")
display_figure(plot_quarter(width=768, rank=32))
SAVED = 0.75  # your guess: that share, with 32 pictures and captions a step

# %% [markdown]
# ## The proof, in letters
#
# That LoRA has its pairs on q, k, v and out, as in the picture, we infer from the paper's Table I. Any other LoRA needs a
# formula.
#
# ### Exercise 2.1 · The size of any LoRA
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 4 |
#
# For a matrix that takes `inputs` numbers and returns `outputs` numbers, A has the shape (rank, inputs) and B (outputs,
# rank). Return how many parameters all pairs hold together. Use + and * alone, since letters come next.


# %% tags=["exercise"]
def lora_parameters(shapes: list[tuple[int, int]], rank: int) -> int:
    """How many parameters LoRA trains.

    Args:
        shapes: (inputs, outputs) of every matrix that gets a pair.
        rank: of every pair.
    """
    # BEGIN SOLUTION
    sizes = [rank * inputs + outputs * rank for inputs, outputs in shapes]
    return sum(sizes)
    # END SOLUTION


check("2.1", lora_parameters)

# %% [markdown]
# <details><summary>Hint 1: one matrix at a time</summary>
#
# A matrix with a rows and b columns holds a · b parameters. Write the product for A, then for B.
#
# </details>
# <details><summary>Hint 2: a case to test with</summary>
#
# For the shapes `[(6, 3), (3, 3)]` at rank 1 the answer is 9 + 6.
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)
#
# ## A quarter of which LoRA?
#
# With the letters d and r your function answers for every width and rank. The last column is the largest rank
# at which that LoRA holds no more than Serial LoRA of rank 32.

# %%
parameters, (d, r) = yours("2.1"), symbols("d r")
serial = parameters([(d, d)], r)
print(f"{'':44} {'size':>8} {'times':>6} {'equal at':>9}")
print(f"{'Serial LoRA: one pair before q, k and v':44} {serial!s:>8}")
for name, shapes in {  # where LoRA's pairs are: (inputs, outputs) of each matrix
    "q, k, v and out: the picture above": [(d, d)] * 4,
    "q, k and v: CLIP-LoRA (Zanella, 2024)": [(d, d)] * 3,
    "q and v: most of LoRA's paper (Hu, 2021)": [(d, d)] * 2,
    "q, k, v and out, k and v a quarter as wide": [(d, d), (d, d / 4), (d, d / 4), (d, d)],
}.items():
    size = parameters(shapes, r)
    print(f"{name:44} {size!s:>8} {size / serial!s:>6} {32 // (size / serial)!s:>9}")

# %% [markdown]
# In the column of times d and r have cancelled: that is the proof. **At equal ranks it is a quarter of LoRA on four
# square matrices.** On q and v alone LoRA has only twice as much, and at rank 8 the first LoRA is as small.
#
# Does training reach every pair that a formula counts?
#
# ### Exercise 2.2 · Counted, and never reached
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 8 |
#
# Return the names of the tensors that require a gradient and that no gradient of the loss reaches, at any step of
# training. Pairs may be fresh, with B zero. Leave the model as it is.


# %% tags=["exercise"]
def never_reached(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> list[str]:
    """The names of the tensors that learn, and get no gradient or one of zeros, whatever they hold.

    Args:
        model: those of its parameters learn that require a gradient.
        loss: of a model, one number.
    """
    # BEGIN SOLUTION
    model = deepcopy(model)
    learn = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for p in learn.values():
        nn.init.normal_(p, std=0.02)
    gradients = torch.autograd.grad(loss(model), list(learn.values()), allow_unused=True)
    return [name for name, g in zip(learn, gradients, strict=True) if g is None or not g.any()]
    # END SOLUTION


check("2.2", never_reached)

# %% [markdown]
# <details><summary>Hint 1: one way back tells</summary>
#
# `torch.autograd.grad(loss, tensors, allow_unused=True)` gives a gradient for each tensor, or None. A gradient that is
# zero everywhere moves nothing either.
#
# </details>
# <details><summary>Hint 2: fresh pairs</summary>
#
# At the first step A's gradient is zero because B is, not because nothing reaches A. What do you have to do with a copy
# of the model so that this cannot happen? (Large numbers would saturate attention, and its gradients become zeros.)
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)
#
# ## Three real models
#
# Now count in the real classes, at their size and the paper's ranks. On the **meta** device a tensor has a shape and no
# storage. CLIP has pairs in both towers, SAM in its encoder. SD3 comes twice, as its text tokens have matrices of
# their own. Your 2.2 searches a small model of SD3's class.


# %%
def trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


print(f"{'':28} rank        LoRA Serial LoRA  times")
for title, name, rank, stream in (
    ("CLIP ViT-B/16", "CLIP", 32, "image"),
    ("SAM ViT-B", "SAM", 64, "image"),
    ("SD3 medium, picture", "SD3", 64, "image"),
    ("SD3 medium, picture and text", "SD3", 64, "both"),
):
    with torch.device("meta"):
        lora, serial = MODELS[name](), MODELS[name]()
    lora_n = trained(inject(lora, LoRAConfig(rank, stream=stream)))
    serial_n = trained(inject(serial, SerialLoRAConfig(rank, stream=stream)))
    print(f"{title:28}{rank:5}{lora_n:12,}{serial_n:12,}{lora_n / serial_n:7.2f}")

one, last = (dict(lora.transformer_blocks[i].attn.named_parameters()) for i in (22, 23))
print("\nSD3's block 23 lacks:", *sorted(one.keys() - last.keys()))
for config in (LoRAConfig(64, stream="both"), SerialLoRAConfig(64, stream="both")):
    lost = sorted(yours("2.2")(inject(MODELS["small SD3"](), config), picture_loss))
    print(f"small SD3, {type(config).__name__:16} never reached:", *(lost or ["none"]))

# %% [markdown]
# With the text the quarter is not exact: it is 3.98. The last block, 23, has no `to_add_out`: SD3 then needs the picture
# alone, and what the text's q asks for is thrown away. In the small model, built alike, **LoRA's pair on that q is
# counted, and no gradient reaches it.** The picture does read the text's k and v; through them Serial LoRA's pair is
# reached.
#
# ## And in memory?
#
# A training step holds weights; gradients and Adam's two moments of what learns; and what the forward pass
# keeps for the way back, which PyTorch lets you watch.
#
# ### Exercise 2.3 · What autograd keeps
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 10 |
#
# Return how many bytes autograd keeps while `run()` computes, without the model's parameters and buffers, which are in
# memory anyway. Inside `with torch.autograd.graph.saved_tensors_hooks(pack, unpack):` PyTorch calls `pack` with each
# tensor, keeps what it returns, and gives that to `unpack` on the way back. Several can be views of one
# `untyped_storage()`, which has a `data_ptr()` and `nbytes()`: count it once.


# %% tags=["exercise"]
def kept(model: nn.Module, run: Callable[[], object]) -> int:
    """Bytes that autograd keeps for the backward pass, without the model's own tensors.

    Args:
        model: whose parameters and buffers do not count.
        run: computes something with the model, and may go backward too.
    """
    # BEGIN SOLUTION
    sizes = {}  # where a storage is -> its bytes

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    return sum(size for place, size in sizes.items() if place not in own)
    # END SOLUTION


check("2.3", kept)

# %% [markdown]
# <details><summary>Hint 1: a notebook for the hook</summary>
#
# Let `pack` write each storage's size into a dictionary, under the place where the storage is. It returns the tensor.
#
# </details>
# <details><summary>Hint 2: the model's own</summary>
#
# A weight is often kept as a view, such as its transpose. So ask of its storage, not of the tensor, whether it is one
# of the model's.
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)
#
# ## One block, operation by operation
#
# The bars are what each operation in the graph of one CLIP block says that it keeps, the black numbers your function's
# total. LoRA freezes the two matrices of the feed-forward, d to 4d and 4d to d. What will be missing? The last
# row gives them pairs.

# %%
ways = {
    "everything": None,
    "LoRA, rank 32": LoRAConfig(32),
    "LoRA, rank 8": LoRAConfig(8),
    "Serial LoRA, rank 32": SerialLoRAConfig(32),
    "LoRA 32, feed-forward too": LoRAConfig(32, parts=("q", "k", "v", "out", "fc1", "fc2")),
}
tokens = torch.rand(1, 197, 768, requires_grad=True)  # (B, N, d)
bars, totals = {}, {}
for name, config in ways.items():
    block = MODELS["block"]()
    if config:
        inject(block, config)
    bars[name] = by_operation(block(tokens), block)
    totals[name] = yours("2.3")(block, partial(block, tokens)) / tokens.nbytes
display_figure(plot_kept(bars, totals))

# %% [markdown]
# **A frozen matrix does not need its input.** It passes the gradient on by its weight; only the weight's own gradient is
# made with the input. So 1 of 6 widths is left, the input of q, k and v, for A; the feed-forward's 1 and 4 are gone.
# (The input of out is in attention's 4.)
#
# Norms, attention and the activation function keep 2, 4 and 8 in every row: the gradient passes them, and their slopes
# depend on what went in. LoRA and Serial LoRA differ between A and B alone, 0.17 to 0.04: **there is the quarter.**
#
# ## A step of CLIP
#
# All of CLIP takes a step of Adam with one picture, and PyTorch's profiler measures. The sum beside it is weights,
# moments, and what is kept or, if larger, the gradients: they come as this is set free. Of everything only the forward
# pass is run (nan). In the last row the pairs of the lower half are frozen, too. In the figure 32 pictures keep 32
# times as much as one.


# %%
def step(model: nn.Module) -> object:
    model.to_empty(device="cpu")  # sizes count, numbers do not
    learn = [p for p in model.parameters() if p.requires_grad]
    if len(learn) == len([*model.parameters()]):  # everything: only the forward pass
        return clip_loss(model)
    adam = torch.optim.Adam(learn)
    for p in learn:
        p.grad = torch.zeros_like(p)
    adam.step()  # of zeros: it makes the moments
    adam.zero_grad()
    clip_loss(model).backward()
    adam.step()


UPPER = "... upper half alone"
memory, measured = {1: {}, 32: {}}, {}  # pictures a step -> way -> part -> MB
print("MB                      weights  moments     kept      sum measured")
for name in (*[*ways][:4], UPPER):
    with torch.device("meta"):
        model = MODELS["CLIP"]()
    if name != "everything":
        inject(model, ways.get(name, SerialLoRAConfig(32)))
    for tower in (model.visual.transformer, model.transformer):
        tower.resblocks[: 6 if name == UPPER else 0].requires_grad_(False)
    weights, each = sum(p.nbytes for p in model.parameters()) / 1e6, 4 * trained(model) / 1e6
    sizes = with_peak(partial(yours("2.3"), model, partial(step, model)))
    held, peak = (size / 1e6 for size in sizes)
    for pictures, bars in memory.items():
        bars[name] = {"weights": weights, "moments": 2 * each}
        bars[name]["kept, or gradients"] = max(each, held * pictures)
    if name != "everything":
        measured[name] = peak
    sizes = weights, 2 * each, held, sum(memory[1][name].values()), measured.get(name, float("nan"))
    print(f"{name:22}", *(f"{size:8.1f}" for size in sizes))
display_figure(plot_memory(memory, measured, SAVED))

# %% [markdown]
# **Hardly any less.** Serial LoRA takes 4.7% less than LoRA with one picture a step and would take 1.5% with 32;
# beside LoRA of rank 8, nothing. The quarter is in the moments, 7.9 MB in place of 31.5, and in the pairs' own
# weights; most is the other weights and what is kept, which hardly differ.
#
# **Freezing saves much.** From everything to an adapter nearly all of the 1197 MB of moments go. With the pairs of the
# lower half frozen 69.0 MB are kept in place of 137.9: no gradient goes below the lowest pair. How well the upper half
# learns alone is not measured. (All in float32 on a CPU.)
#
# ## Quiz
#
# **1. You adapt the lower half of CLIP's blocks alone. Does that halve what is kept, too?**
#
# <details><summary>Answer</summary>
#
# No. The gradient passes the upper blocks on its way, so their norms, attention and activation functions keep 14
# widths. Of 15.06 these blocks are spared about one width.
#
# </details>
#
# **2. k and v are a quarter as wide as q. You adapt q and v. At which rank is LoRA no larger than Serial LoRA of
# rank 32?**
#
# <details><summary>Answer</summary>
#
# Rank 19. One rank costs 2d parameters on q and 1.25d on v, together 3.25d, and that fits into 2d · 32 nineteen times.
# Half of 32 would be right only if v were square.
#
# </details>
#
# **3. A thousand customers have an adapter of CLIP each, at rank 32. What does the quarter save there?**
#
# <details><summary>Answer</summary>
#
# Nearly three quarters of the disk. LoRA's 3,932,160 parameters are 15.7 MB in float32, so 15.7 GB for all; Serial
# LoRA's are 3.9 GB. CLIP itself is stored once, with 0.6 GB. (LoRA at rank 8 saves the same.)
#
# </details>
#
# ## What to remember
#
# - Ask which LoRA is meant, and compare at equal size too.
# - Count on the real model, and see what a gradient reaches.
# - A frozen matrix needs no input. In this CLIP an adapter's size saves disk, hardly memory; its place saves more.
#
# Next: [03 · Build Serial LoRA](03_build_serial_lora.ipynb).
