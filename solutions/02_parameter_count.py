# %% [markdown]
# # 02 · The count, proved
#
# The paper on Serial LoRA (Zhong et al., 2025) promises a quarter of LoRA's parameters. <!-- from the paper's title
# page: 2025 --> Below are the four matrices of one attention block in CLIP's picture tower, drawn to scale with their
# pairs. Each filled square holds as many parameters as a pair.
#
# **What of this quarter does the memory of training show?** Write your guess into the last line of the next cell: with
# Serial LoRA in place of LoRA, by which share does the memory fall that a training step of CLIP takes?

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
from serial_lora_course.lessons.l02_count.figures import plot_kept, plot_quarter, plot_savings
from serial_lora_course.lessons.l02_count.measure import (
    REAL,
    kept_by_operation,
    picture_loss,
    with_peak,
)
from serial_lora_course.models.sd3 import load_sd3
from serial_lora_course.plots.style import display_figure

lesson_card("02")
display_figure(plot_quarter(width=768, rank=32))
SAVED = 0.25  # your guess: the share by which it falls, with 32 pictures and captions a step

# %% [markdown]
# ## The proof, in letters
#
# LoRA in the picture has a pair on each of q, k, v and out, as we infer from the paper's text and Table I; Serial LoRA
# has one, in front of q, k and v. Any other LoRA needs a formula.
#
# ### Exercise 2.1 · The size of any LoRA
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 4 |
#
# For a matrix that takes `inputs` numbers and returns `outputs` numbers, A has the shape (rank, inputs) and B the
# shape (outputs, rank). There is no bias. Return how many parameters all pairs hold together. Use + and * alone: the
# next cell gives your function letters.


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
# Call your function with the letters d and r, and what it returns holds for every width and rank. The last column is
# the rank at which that LoRA is as large as Serial LoRA of rank 32, or the next one below.

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
# In the column of times d and r have cancelled: that is the proof. **At equal ranks it is a quarter of LoRA on all four
# matrices of attention, if they are square.** LoRA on q and v has only twice as much. And the first LoRA is as
# small at rank 8, so a small adapter alone is no reason for Serial LoRA.
#
# A formula counts the pairs that it is told of. Which matrices there are, and whether training reaches a
# pair, only the model itself can say.
#
# ### Exercise 2.2 · Counted, and never reached
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 8 |
#
# Return the names of the tensors that should learn and that no gradient of the loss will ever reach, at any step of
# training. The model may have fresh pairs, whose B is zero. Leave it as it is.


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
        nn.init.normal_(p, std=0.1)
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
# of the model so that this cannot happen?
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)
#
# ## Three real models
#
# Take the real classes at their real size and the paper's ranks, put the adapters in, and count. On the **meta** device
# a tensor has a shape and no storage, so this costs nothing. SD3 comes twice, since its text tokens have matrices of
# their own. Beside LoRA's count is your 2.1, with four square matrices wherever Serial LoRA has a pair (in SAM that is
# the picture's encoder alone). In which row is it wrong? The course's small SD3 is of the same class; there your 2.2
# looks for what is never reached.


# %% tags=["nbval-check-output"]
def trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


print(f"{'':6} stream rank {'LoRA':>12} {'by 2.1':>12} {'Serial LoRA':>12}  times")
for name, rank, stream in (
    ("CLIP", 32, "image"),  # with its text tower
    ("SAM", 64, "image"),
    ("SD3", 64, "image"),
    ("SD3", 64, "both"),
):
    with torch.device("meta"):
        lora, serial = REAL[name](), REAL[name]()
    lora_size = trained(inject(lora, LoRAConfig(rank, stream=stream)))
    serial_size = trained(inject(serial, SerialLoRAConfig(rank, stream=stream)))
    places = [p.shape[1] for key, p in serial.named_parameters() if key.endswith("lora_A")]
    formula = parameters([(d, d) for d in places] * 4, rank)
    print(f"{name:6} {stream:6} {rank:4} {lora_size:12,} {formula:12,} {serial_size:12,}", end="")
    print(f" {lora_size / serial_size:6.2f}")

one, last = (dict(lora.transformer_blocks[i].attn.named_parameters()) for i in (22, 23))
print("\nSD3's block 23 lacks:", *sorted(one.keys() - last.keys()))
tiny = load_sd3("tiny").model
for config in (LoRAConfig(64, stream="both"), SerialLoRAConfig(64, stream="both")):
    small = inject(deepcopy(tiny), config)
    lost = yours("2.2")(small, picture_loss)
    print(f"small SD3, {type(config).__name__:16} never reached:", *(lost or ["none"]))

# %% [markdown]
# With SD3's text tokens the quarter is not exact: it is 3.98. Block 23 has no `to_add_out`, which would bring the text
# out of attention, because after its last block SD3 needs the picture's tokens alone. Nor does the text's q matter
# there: it asks what the text should read, and that is thrown away. **So the pair on it is counted, and no gradient
# ever reaches it.** The text's k and v are read by the picture's tokens. Serial LoRA's pair stands in front of
# all three, so it is reached through k and v.
#
# ## And in memory?
#
# A training step holds the weights; for each parameter that learns a gradient and Adam's two moments; and what
# the forward pass keeps for the way back. The last is hard to guess, but PyTorch lets you watch.
#
# ### Exercise 2.3 · What autograd keeps
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 10 |
#
# Return how many bytes autograd keeps while `run()` computes, but for the model's own parameters and buffers, which are
# in memory anyway. Inside `with torch.autograd.graph.saved_tensors_hooks(pack, unpack):` PyTorch calls `pack(tensor)`
# with each tensor to keep, keeps what that returns, and on the way back calls `unpack` with it. Some are
# views of one storage: count each storage once, by `untyped_storage()`, which has a `data_ptr()` and `nbytes()`.


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
# Here is one block of CLIP, trained in five ways. Bars show what is kept for each token, in units of the width, 768
# numbers. Each operation in autograd's graph is asked what it keeps; the totals on the right are your function's. LoRA
# freezes the feed-forward's two matrices, d to 4d and 4d to d. What may be missing from its bar? The last row gives
# these matrices pairs.

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
    block = REAL["block"]()
    if config:
        inject(block, config)
    parts = kept_by_operation(block(tokens), block)
    bars[name] = {part: size / tokens.nbytes for part, size in parts.items()}
    totals[name] = yours("2.3")(block, partial(block, tokens)) / tokens.nbytes
display_figure(plot_kept(bars, totals))

# %% [markdown]
# **A matrix that is frozen does not need its input.** It passes the gradient on by its weight; only the weight's own
# gradient is made with the input. So of 6 widths 1 is left, the input of q, k and v, which A needs. The last row
# tests this reason: pairs on the feed-forward bring all of it back, 6 again.
#
# Norms, attention and the activation function keep 14 whatever learns, since their slopes depend on what
# went in, and the gradient passes through each. What LoRA and Serial LoRA do not share is what is kept between A and
# B, 32 numbers a token for each pair: 0.17 against 0.04. **Here is the quarter, and 15 others stand beside it.**
#
# ## A step of CLIP
#
# Now all of CLIP, forward and back, with one picture and its caption and with two. PyTorch's profiler says how
# much the step had allocated at once. Does that agree with what your function says? The lines in the figure go on to larger
# batches: weights, moments, and what one picture keeps times the batch.


# %%
def step(model: nn.Module, batch: int) -> None:
    pictures, captions = torch.rand(batch, 3, 224, 224), torch.zeros(batch, 77, dtype=torch.long)
    of_pictures, of_captions, _ = model(pictures, captions)
    (of_pictures * of_captions).sum().backward()


memory = {}  # way -> (weights and moments, kept for one picture, {batch: measured}), in MB
print(f"{'':22} batch weights moments    kept  together | measured: the step  together")
for name, batches in zip(ways, ([1], [1, 2], [1], [1, 2]), strict=False):
    for batch in batches:
        with torch.device("meta"):
            model = REAL["CLIP"]()
        if ways[name]:
            inject(model, ways[name])
        model.to_empty(device="cpu")  # sizes count, numbers do not
        weights = sum(p.nbytes for p in model.parameters()) / 1e6
        moments = 2 * 4 * trained(model) / 1e6  # two float32 for each
        size, peak = with_peak(partial(yours("2.3"), model, partial(step, model, batch)))
        row = (weights, moments, size / 1e6, weights + moments + size / 1e6)
        print(f"{name:22} {batch:5}" + "".join(f"{part:8.1f}" for part in row), end="  | ")
        print(f"{peak / 1e6:18.1f} {weights + moments + peak / 1e6:9.1f}")
        measured = memory.setdefault(name, (weights + moments, size / 1e6, {}))[2]
        measured[batch] = weights + moments + peak / 1e6
ways = ("LoRA, rank 32", "LoRA, rank 8", "Serial LoRA, rank 32")
display_figure(plot_savings({way: memory[way] for way in ways}, SAVED))

# %% [markdown]
# **Hardly any of it.** With one picture a step Serial LoRA takes 4.7% less than LoRA of its rank, and with 32 it would be
# 1.5%. The quarter is there, in the moments: 7.9 MB in place of 31.5. But with one picture weights are most of the
# memory, with many what is kept, and both are nearly the same. Beside LoRA of rank 8 nothing is saved.
#
# Your sum and the profiler's agree to 3 MB in every row but the first, with no gradients in the sum. For a
# gradient comes as the way back sets free what was kept. Only where everything learns are gradients larger
# than what is kept, so the step takes 610 MB. **The large saving is from training everything to training any adapter.**
# (This is float32 on a CPU. With less exact numbers or recomputing, other parts count.)
#
# ## Quiz
#
# **1. You adapt the upper half of CLIP's blocks alone. What does that change in what is kept?**
#
# <details><summary>Answer</summary>
#
# The lower half keeps nothing: there is no pair in it or below it, so no gradient has to go through. Where pairs
# are changes memory more than how large they are. Whether it learns as well has to be measured.
#
# </details>
#
# **2. In your model k and v are a quarter as wide as q. You adapt q and v with LoRA. At which rank is it no
# larger than Serial LoRA of rank 32?**
#
# <details><summary>Answer</summary>
#
# Rank 19. One rank costs 2d parameters on q and 1.25d on v, together 3.25d, and that fits into 2d · 32 nineteen times.
# Half of 32 would be right only if v were square.
#
# </details>
#
# **3. A thousand customers have an adapter each for CLIP ViT-B/16, at rank 32. What does the quarter save there?**
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
# - A pair holds rank · (inputs + outputs) parameters. Ask which LoRA is meant, and compare at equal size too.
# - Count on the real model, and see whether a gradient reaches what you count.
# - A frozen matrix does not keep its input. An adapter's size saves disk, hardly memory in training.
#
# Next: [03 · Build Serial LoRA](03_build_serial_lora.ipynb).
