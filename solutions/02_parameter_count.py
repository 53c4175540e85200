# %% [markdown]
# # 02 · The count, proved
#
# The paper on Serial LoRA (Zhong et al.) promises a quarter of LoRA's parameters. The figure below draws the four
# matrices of an attention block in CLIP's picture tower to scale, with the pairs that each method adds. A filled square
# on the right holds as many parameters as one pair.
#
# **If you train CLIP with Serial LoRA in place of LoRA, how much memory do you save?** Write your guess, as a share,
# in the last line of the next cell. At the end of the lesson you measure a step with one picture, and compute one with
# 32.

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
SAVED = 0.75  # your guess: the share saved, with 32 pictures and captions a step

# %% [markdown]
# ## The proof, in letters
#
# The figure has LoRA's pairs on q, k, v and out, which we infer from the paper's Table I. Other people put LoRA
# elsewhere, so you need a formula that counts any LoRA.
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
# If you give your function the letters d and r in place of numbers, it answers for every width and every rank at once.
# The column "times" divides by the size of Serial LoRA. The last column is the largest rank at which that LoRA holds no
# more parameters than Serial LoRA of rank 32.

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
# Look at the column "times": d and r have cancelled, so the result holds for every width and rank, and that is the
# proof. **At equal ranks, Serial LoRA has a quarter of the parameters of LoRA on four square matrices.** LoRA on q and
# v alone has only twice as many. And LoRA on all four at rank 8 is as small as Serial LoRA at rank 32.
#
# A formula counts every pair that is there. But does training reach every pair?
#
# ### Exercise 2.2 · Counted, and never reached
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 8 |
#
# Some tensors require a gradient, and yet the loss does not depend on them, so the loss never moves them. Return their
# names. The pairs that you are given may be fresh, with B zero. Leave the model as it is.


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
# At the first step A's gradient is zero because B is zero, although later gradients do reach A. What can you do with a
# copy of the model so that this does not mislead you? (Keep the numbers small: large ones saturate attention, and then
# its gradients are zeros too.)
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)
#
# ## Three real models
#
# Real models may have blocks that the formula does not know. So now count the parameters in the models' own classes, at
# their real size and with the paper's ranks. They are built on PyTorch's **meta** device, where a tensor has a shape but
# no numbers, so this needs no memory. CLIP gets pairs in both towers, SAM in its picture encoder. SD3 stands there twice,
# because its text tokens have attention matrices of their own. At the end your function from exercise 2.2 searches a
# small model of SD3's class.


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
left = lora_n - parameters([(1536, 1536)], 64)
print(f"SD3 medium without that pair: {left:,} to {serial_n:,}, {left / serial_n:.2f} times")

# %% [markdown]
# For CLIP, SAM and the picture half of SD3 the factor is exactly 4. With SD3's text it is 3.98, because the last block,
# number 23, has no `to_add_out`: after that block SD3 needs the picture alone, so the text's output is thrown away. For
# the same reason the text's q has no effect there. The small model is built in the same way, and your search finds it:
# **LoRA's pair on that q is counted, but no gradient ever reaches it.** Without that pair the factor is 3.96. Serial
# LoRA loses nothing, because its pair also feeds the text's k and v, which the picture reads.
#
# ## And in memory?
#
# While a model trains, memory holds four things: the weights; the gradients and Adam's two moments, for the parameters
# that learn; and the tensors that the forward pass keeps for the backward pass. The last of them is the least known, and
# PyTorch lets you watch it.
#
# ### Exercise 2.3 · What autograd keeps
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 10 |
#
# Return how many bytes autograd keeps while `run()` computes. Leave out the model's own parameters and buffers, which are
# in memory anyway. Inside `with torch.autograd.graph.saved_tensors_hooks(pack, unpack):` PyTorch calls `pack` with each
# tensor that it wants to keep, stores what `pack` returns, and hands it to `unpack` in the backward pass. Several tensors
# can be views of one `untyped_storage()`, which has a `data_ptr()` and `nbytes()`; count each storage once.


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
# Let `pack` write each storage's size into a dictionary, under the place where the storage is. It returns
# `tensor.detach()`, since the tensor itself would be kept in a circle.
#
# </details>
# <details><summary>Hint 2: the model's own</summary>
#
# Autograd often keeps a weight as a view, such as its transpose. So compare storages with those of the model, not
# tensors.
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)
#
# ## One block, operation by operation
#
# The next figure does it for one block of CLIP. The bars are what the operations of its graph keep, and the black numbers
# are the totals that your function finds, so the two should agree. Before you run the cell: LoRA freezes the
# feed-forward's two matrices, d to 4d and 4d to d. Which parts of the first row will be missing in the second? In the
# last row these two matrices have pairs as well.

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
# **A frozen matrix does not need its input.** The gradient passes through a matrix by means of the weight; the input is
# needed only for the weight's own gradient. So in the light blue part, 6 widths become 1: A still needs the input of q, k
# and v, while the feed-forward's inputs, of 1 and 4 widths, are gone. (The input of out is among attention's 4.)
#
# Norms, attention and the activation function keep 2, 4 and 8 widths in every row. The gradient has to pass them as
# long as something at or below the block learns, and their slopes depend on what went in or came out. The two methods
# differ only in the few numbers between A and B, 0.17 widths against 0.04. **That is the quarter, and it is hard to
# see.**
#
# ## A step of CLIP
#
# Now CLIP takes steps of Adam with one picture, while PyTorch's profiler measures the most memory that was in use. To
# explain the measured number, the table adds up the parts: weights, moments, and what is kept. (If the gradients are
# larger than what is kept, they count in its place, since they are made while it is freed.) For training everything,
# the cell runs the forward pass alone, so nothing is measured there (nan). In the row *upper half alone* the pairs in
# the lower half of the blocks are frozen too.


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


# %%
import pandas as pd
from IPython.display import display

UPPER = "... upper half alone"
memory, measured = {1: {}, 32: {}}, {}  # pictures a step -> way -> part -> MB
table = pd.DataFrame(columns=["weights", "moments", "kept", "sum", "measured"], dtype=float)
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
    sums = sum(memory[1][name].values())
    table.loc[name] = weights, 2 * each, held, sums, measured.get(name, float("nan"))
one, other = (table.loc[f"{method}, rank 32"] for method in ("LoRA", "Serial LoRA"))
table.loc["LoRA 32 - Serial LoRA 32"] = one - other
print("Megabytes, one picture a step:")
display(table.round(1))
two = yours("2.3")(model, partial(clip_loss, model, pictures=2)) / 1e6
print(f"two pictures, upper half alone: {two:.1f} MB are kept")
display_figure(plot_memory(memory, measured, SAVED))

# %% [markdown]
# **Serial LoRA saves hardly any memory.** The table's last row shows where the difference lies: 23.6 MB are moments, 11.8
# are the pairs' own weights, and only 1.3 is what is kept. That sum is 4.7% of a step with one picture. The right panel
# computes a step with 32 pictures, which keeps 32 times as much (two keep twice as much, as the line below the table
# confirms). There the saving is 1.5%. Against LoRA of rank 8 nothing is saved at all.
#
# **Freezing saves much more.** Once the model is frozen, nearly all of the 1197 MB of moments go. And if the pairs in the
# lower half are frozen too, 69.0 MB are kept in place of 137.9, because no gradient has to go below the lowest pair that
# learns. Whether the upper half alone learns as well is another question, which we do not measure here. (All numbers are
# for float32 on a CPU.)
#
# ## Quiz
#
# **1. You adapt the lower half of CLIP's blocks alone. Does that halve what is kept, too?**
#
# <details><summary>Answer</summary>
#
# No. The gradient passes through the upper blocks on its way down, so their norms, attention and activation functions
# still keep 14 of the 15.06 widths. The upper blocks save only about one width each.
#
# </details>
#
# **2. k and v are a quarter as wide as q. You adapt q and v. At which rank is LoRA no larger than Serial LoRA of
# rank 32?**
#
# <details><summary>Answer</summary>
#
# Rank 19. Each rank costs 2d parameters on q and 1.25d on v, so 3.25d together, and 2d · 32 divided by that is a little
# above nineteen. Half of 32 would be right only if v were square.
#
# </details>
#
# **3. A thousand customers have an adapter of CLIP each, at rank 32. What does the quarter save there?**
#
# <details><summary>Answer</summary>
#
# Nearly three quarters of the disk. LoRA's 3,932,160 parameters take 15.7 MB in float32, which makes 15.7 GB for all
# customers; Serial LoRA's take 3.9 GB. CLIP itself is stored only once, in 0.6 GB. (LoRA at rank 8 would save as much.)
#
# </details>
#
# ## What to remember
#
# - When somebody promises a quarter, ask which LoRA is meant, and compare at equal size as well.
# - Count in the real model, and check which parameters a gradient reaches.
# - A frozen matrix does not need its input. A smaller adapter saves disk but hardly any memory; adapters in the upper
#   half alone save more.
#
# Next: [03 · Build Serial LoRA](03_build_serial_lora.ipynb).
