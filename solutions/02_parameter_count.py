# %% [markdown]
# # 02 · The count, proved
#
# The paper on Serial LoRA (Zhong et al.) promises a quarter of LoRA's parameters. In an attention block, q, k and v read
# the same tokens x. So one pair of thin matrices that changes x reaches all three, where LoRA has three pairs. LoRA's
# fourth pair, on the matrix out after attention, is left away. The figure below is drawn to scale for CLIP; a filled
# square on the right holds as many parameters as one pair.
#
# The proof takes one line of algebra; its conditions take a few more. Then comes what the quarter is worth, a question
# that parameter tables leave out: **if you train CLIP with Serial LoRA
# in place of LoRA, how much of the memory do you save?** Write your guess, as a share, in the last line of the next cell.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pandas as pd
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
# The paper compares with LoRA on q, k, v and out, as far as its Table I lets us infer. Others put LoRA elsewhere, so you
# need a formula that counts any LoRA.
#
# ### Exercise 2.1 · The size of any LoRA
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 4 |
#
# For a matrix that takes `inputs` numbers and returns `outputs` numbers, A has the shape (rank, inputs) and B (outputs,
# rank). Return how many parameters all pairs hold together. Use only + and *, because letters
# come next.


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
# Give your function the letters d and r in place of numbers, and it answers for every width and every rank at once. The
# column "times" divides by the size of Serial LoRA. The last column is the largest rank at which LoRA is no larger than
# Serial LoRA of rank 32.

# %%
parameters, (d, r) = yours("2.1"), symbols("d r")
serial = parameters([(d, d)], r)
print(f"{'':44} {'size':>8} {'times':>6} {'fits at':>8}")
print(f"{'Serial LoRA: one pair before q, k and v':44} {serial!s:>8}")
for name, shapes in {  # where LoRA's pairs are: (inputs, outputs) of each matrix
    "q, k, v and out: the figure above": [(d, d)] * 4,
    "q, k and v: CLIP-LoRA (Zanella, 2024)": [(d, d)] * 3,
    "q and v: most of LoRA's paper (Hu, 2021)": [(d, d)] * 2,
    "q, k, v and out, k and v a quarter as wide": [(d, d), (d, d / 4), (d, d / 4), (d, d)],
}.items():
    size = parameters(shapes, r)
    print(f"{name:44} {size!s:>8} {size / serial!s:>6} {32 // (size / serial)!s:>8}")

# %% [markdown]
# In each row d and r have cancelled. So the first row's 4 holds for every width and every rank, and that is the proof.
# The other rows and the last column show its three conditions:
#
# - **LoRA has pairs on all four matrices.** On q and v alone it has only twice as many parameters.
# - **The four matrices are square.** With narrower k and v, as in language models with grouped-query attention, the
#   factor is smaller.
# - **The ranks are equal.** LoRA of rank 8 is as small as Serial LoRA of rank 32.
#
# The formula counts every pair that is there. Does training also use every pair?
#
# ### Exercise 2.2 · Counted, and never reached
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 8 |
#
# A parameter may be marked as trainable although nothing that it does reaches the loss. Return the names of all such
# tensors. The pairs that you are given may be fresh, with B zero. Leave the model as it is.


# %% tags=["exercise"]
def never_reached(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> list[str]:
    """The names of the tensors that require a gradient, and on which the loss does not depend.

    Args:
        model: some of its parameters require a gradient.
        loss: takes a model and returns one number.
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
# <details><summary>Hint 1: one backward pass tells</summary>
#
# `torch.autograd.grad(loss, tensors, allow_unused=True)` gives a gradient for each tensor, or None. A gradient that is
# zero everywhere brings nothing from the loss either.
#
# </details>
# <details><summary>Hint 2: fresh pairs</summary>
#
# While B is zero, A's gradient is zero too, although A learns from the second step on. So copy the model, fill every
# tensor that learns with small random numbers, and look at the gradients of the copy. (Large numbers would saturate
# attention, and then its gradients are zeros too.)
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)
#
# ## Three real models
#
# Real models may have blocks that the formula does not know. So we count in the models' own classes, at their real size
# and with the paper's ranks. PyTorch's **meta** device gives a tensor a shape but no numbers, so this takes no memory.
# SD3 is counted twice, because its text tokens have attention matrices of their own. Then your function from exercise
# 2.2 searches a small model of SD3's class.


# %%
def trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


print(f"{'':28} rank        LoRA Serial LoRA  times")
for title, name, rank, stream in (
    ("CLIP ViT-B/16, both towers", "CLIP", 32, "image"),
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
# For CLIP, SAM and the picture half of SD3 the factor is exactly 4. With SD3's text it is 3.98: the last block, number
# 23, has no `to_add_out`, so LoRA has one pair fewer there. After that block SD3 uses the picture alone, and the text's
# output is thrown away. Therefore the text's q in that block has no effect either. Your search of the small
# model finds it: **LoRA's pair on that q is counted, but no gradient ever reaches it.** Serial LoRA's pair is used,
# because it also feeds the text's k and v, which the picture reads. (The small model has five blocks, so 4 is its last.)
#
# ## What is the quarter worth in memory?
#
# A training step keeps four things in memory: the weights; the gradients and Adam's two moments, for the parameters that
# learn; and the tensors that the forward pass keeps for the backward pass. An adapter makes the gradients and moments
# small. What does it do to the tensors that are kept?
#
# ### Exercise 2.3 · What autograd keeps
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 10 |
#
# Return how many bytes autograd keeps while `run()` computes, without the model's own parameters and buffers, which are
# in memory anyway. Inside `with torch.autograd.graph.saved_tensors_hooks(pack, unpack):` PyTorch calls `pack` with each
# tensor that it wants to keep, stores what `pack` returns, and hands that to `unpack` in the backward pass. Several
# tensors can be views of one `untyped_storage()`, which has a `data_ptr()` and `nbytes()`; count each storage once.


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
# <details><summary>Hint 1: what `pack` does</summary>
#
# Let it write each storage's size into a dictionary, with the storage's `data_ptr()` as the key, and return
# `tensor.detach()`. (The tensor itself would lead back to the graph that keeps it, and so never be freed.)
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
# The next figure shows what one block of CLIP keeps for a token; the unit is the block's width d, which is 768 numbers.
# The bars come from a walk backward through autograd's graph, which asks each operation what it keeps; the bold numbers
# are the totals that your function counts.
# **Before you run the cell:** LoRA freezes the two matrices of the feed-forward, d to 4d and 4d to d. Which parts of the
# first row will be missing in the second?

# %%
ways = {
    "everything": None,
    "LoRA, rank 32": LoRAConfig(32),
    "LoRA, rank 8": LoRAConfig(8),
    "Serial LoRA, rank 32": SerialLoRAConfig(32),
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
# **A frozen matrix does not need its input.** For y = x Wᵀ and a gradient g of y, the gradient of x is g W, and that of W
# is gᵀ x. With W frozen only the first is computed, and it needs no x. So the light blue part shrinks from 6 widths to
# 1: the feed-forward's inputs are gone, of 1 and 4 widths, and what q, k and v read stays, because A learns from it.
#
# Norms, attention and the activation function keep 2 + 4 + 8 widths in every row, because the gradient has to pass them on
# its way down, and for that it needs what went in or came out: the input of each norm; q, k, v and what attention gives
# (which is also out's input); and of CLIP's activation function, h times a sigmoid, both factors, each 4d wide. Only
# the purple part depends on the rank: 0.17 widths for LoRA, 0.04 for Serial LoRA. **That is a quarter of very little.**
#
# ## The whole step
#
# Now CLIP takes a step of Adam with one picture, while PyTorch's profiler measures the most memory that was in use.
# Beside it we add up the parts. (The pairs' gradients are left out: they are made while the much larger kept tensors are
# freed, so memory is fullest before them.) In the row *upper half alone*, the pairs in the lower half of the blocks are
# frozen too.


# %%
def step(model: nn.Module) -> None:
    model.to_empty(device="cpu")  # sizes count, numbers do not
    learn = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.Adam(learn)
    for p in learn:
        p.grad = torch.zeros_like(p)
    adam.step()  # of zeros: it makes the moments
    adam.zero_grad()
    clip_loss(model).backward()
    adam.step()


UPPER = "... upper half alone"
memory, measured = {1: {}, 32: {}}, {}  # pictures a step -> way -> part -> MB
for name in (*[*ways][1:], UPPER):
    with torch.device("meta"):
        model = MODELS["CLIP"]()
    weights = sum(p.nbytes for p in model.parameters()) / 1e6
    inject(model, ways.get(name, SerialLoRAConfig(32)))
    for tower in (model.visual.transformer, model.transformer):
        tower.resblocks[: 6 if name == UPPER else 0].requires_grad_(False)
    pairs = sum(p.nbytes for p in model.parameters()) / 1e6 - weights
    moments = 2 * 4 * trained(model) / 1e6
    sizes = with_peak(partial(yours("2.3"), model, partial(step, model)))
    held, measured[name] = (size / 1e6 for size in sizes)
    for pictures, bars in memory.items():
        bars[name] = {"CLIP": weights, "pairs, and their moments": pairs + moments}
        bars[name]["kept for the backward pass"] = held * pictures

print("MB, with one picture a step:")
both = ["LoRA, rank 32", "Serial LoRA, rank 32"]
parts = {way: memory[1][way] | {"measured": measured[way]} for way in both}
print(pd.DataFrame(parts).round(1))
two = yours("2.3")(model, partial(clip_loss, model, pictures=2)) / 1e6
print(f"\nwith two pictures, {two / held:.2f} times as much is kept as with one")
display_figure(plot_memory(memory, measured, SAVED))

# %% [markdown]
# **The quarter is the pairs' part: 47.2 MB become 11.8.** The rest hardly changes, and the parts add up to what was
# measured, but for tensors that live a moment. So Serial LoRA saves 4.7% of the memory
# with one picture. With 32 pictures much more is kept, by both methods, and the saving is 1.5%. (The right panel is
# computed: what is kept is multiplied by 32. Two pictures do keep twice as much, as the last printed line shows.) LoRA
# of rank 8 saves the same.
#
# To save memory, keep the gradient out of the lower blocks. **If only the pairs in the upper half learn, 44.8% are saved
# with 32 pictures,** because no gradient has to go below the lowest pair that learns. (Of these, Serial LoRA brings the
# 1.5% from before. All numbers are for float32 on a CPU.) Whether the model then learns as well, we do not measure here.
#
# ## Quiz
#
# **1. You adapt the lower half of CLIP's blocks alone. Does that halve what is kept, too?**
#
# <details><summary>Answer</summary>
#
# No. The gradient passes through the upper blocks on its way down, so each of them still keeps 2 + 4 + 8 of its 15.06
# widths, in norms, attention and activation function. It saves only about one width.
#
# </details>
#
# **2. k and v are a quarter as wide as q, and you put LoRA on q and v. Up to which rank is it no larger than Serial LoRA
# of rank 32?**
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
# - Serial LoRA has a quarter of LoRA's parameters, at equal ranks, if LoRA has pairs on all four matrices and these are
#   square. At rank 8 that LoRA is as small as Serial LoRA at rank 32.
# - Count in the real model, and check that a gradient reaches what you count.
# - A quarter of the parameters saves three quarters of an adapter's file, and 1.5% of the memory of a training step with
#   32 pictures. Most of that memory is what the forward pass keeps.
#
# Next: [03 · Build Serial LoRA](03_build_serial_lora.ipynb).
