# %% [markdown]
# # 02 · The count, proved
#
# You train CLIP with LoRA, and the memory is full. A paper on Serial LoRA (Zhong et al.) promises a quarter of LoRA's
# parameters. **How much memory would it save?** A table of parameters does not tell, so we measure it. First we prove the
# quarter, in one line of algebra. It has two sources:
#
# - In an attention block, q, k and v read the same tokens x. One pair of thin matrices that changes x reaches all
#   three. So three of LoRA's pairs become one.
# - LoRA's fourth pair, on the matrix *out* after attention, is dropped.
#
# The figure is to scale for CLIP; a filled square holds as many parameters as one pair. Write your guess, as a share of
# the memory, in the last line of the cell.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from sympy import symbols
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from serial_lora import LoRAConfig, SerialLoRAConfig, inject, save_adapter
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.lessons.l02_count import measure
from serial_lora_course.lessons.l02_count.figures import plot_kept, plot_memory, plot_quarter
from serial_lora_course.lessons.l02_count.measure import MODELS
from serial_lora_course.plots.style import display_figure

lesson_card("02")
display_figure(plot_quarter(width=768, rank=32))
SAVED = 0.75  # your guess: the share of memory saved, in a training step with 32 pictures

# %% [markdown]
# ## The proof, in letters
#
# The paper does not say where its LoRA stands, but the sizes in its Table I fit q, k, v and out. Others put LoRA
# elsewhere, so you need a formula that counts any LoRA.
#
# ### Exercise 2.1 · The size of any LoRA
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 4 |
#
# For a matrix that takes `inputs` numbers and returns `outputs` numbers, A has the shape (rank, inputs) and B (outputs,
# rank). Return how many parameters all pairs hold together. Use only + and *, because letters come next.


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
# Give your function the letters d and r in place of numbers, and it answers for every width and rank at once. In
# the first table, "times" divides by the size of Serial LoRA, and "fits at" is the largest rank that makes LoRA no larger
# than Serial LoRA of rank 32.
#
# The second table counts in real models, at the paper's ranks. (PyTorch's **meta** device gives a tensor a shape but no
# numbers, so this takes no memory.)


# %%
def trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


(d, r), parameters = symbols("d r"), yours("2.1")
serial = parameters([(d, d)], r)
print(f"{'':44}{'size':>9}{'times':>7}{'fits at':>9}")
print(f"{'Serial LoRA, in front of q, k, v':44}{serial!s:>9}{1:>7}{32:>9}")
for place, shapes in {  # (inputs, outputs) of each matrix that has a pair
    "LoRA on q, k, v, out: the figure above": [(d, d)] * 4,
    "LoRA on q, k, v: CLIP-LoRA": [(d, d)] * 3,  # Zanella and Ben Ayed, 2024
    "LoRA on q, v: most of LoRA's paper": [(d, d)] * 2,  # Hu et al., 2021
    "LoRA on all four, k and v a quarter as wide": [(d, d), (d, d / 4), (d, d / 4), (d, d)],
}.items():
    size = parameters(shapes, r)
    print(f"{place:44}{size!s:>9}{size / serial!s:>7}{32 // (size / serial)!s:>9}")

print(f"\n{'':29} rank        LoRA Serial LoRA  times")
for title, name, rank, stream in (
    ("CLIP ViT-B/16, both towers", "CLIP", 32, "image"),
    ("SAM ViT-B", "SAM", 64, "image"),
    ("SD3 medium, picture and text", "SD3", 64, "both"),  # text has q, k, v and out of its own
):
    with torch.device("meta"):
        lora = trained(inject(MODELS[name](), LoRAConfig(rank, stream=stream)))
        serial = trained(inject(MODELS[name](), SerialLoRAConfig(rank, stream=stream)))
    print(f"{title:29}{rank:5}{lora:12,}{serial:13,}{lora / serial:7.2f}")

# %% [markdown]
# In the column "times", d and r have cancelled in every row. So the 4 in LoRA's first row holds for every width and every
# rank: that is the proof.
# The other rows show its three conditions:
#
# - **LoRA has pairs on all four matrices.** Without out the factor is 3, on q and v alone it is 2.
# - **The four matrices are square.** With narrower k and v, as in language models with grouped-query attention, it is
#   smaller.
# - **The ranks are equal.** LoRA of rank 8 is as small as Serial LoRA of rank 32.
#
# CLIP and SAM agree. SD3's last block needs no output for text, so it has no matrix out there: LoRA has one pair fewer, and
# the factor is 3.98.
#
# The quarter has a price: q, k and v share one A and one B, and out does not change. (Lesson 01 shows what that cannot
# express.) What does it buy?
#
# ## What is kept in memory?
#
# A training step holds the weights; the gradients and Adam's two moments, for parameters that learn; and the tensors of the
# forward pass that the backward pass will need. An adapter makes gradients and moments small. Does it also keep fewer
# tensors? For a single matrix W, with g the gradient of the loss by y:
#
# | y = x Wᵀ | is | needs |
# |---|---|---|
# | gradient of x | g W | W |
# | gradient of W | gᵀ x | x |
#
# ### Exercise 2.2 · A layer that keeps only what it must
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# Write this layer, forward and backward. `ctx.needs_input_grad`, a pair of booleans, tells whether x and W need a gradient. Keep with
# `ctx.save_for_backward(...)` only what a needed gradient is made of. The check compares the output, the gradients, and
# what is kept.


# %% tags=["exercise"]
class FrugalLinear(torch.autograd.Function):
    """y = x Wᵀ, which keeps for the backward pass only what that needs."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, W: Tensor) -> Tensor:
        """x: (N, inputs), W: (outputs, inputs) -> y: (N, outputs)"""
        # BEGIN SOLUTION
        for_x, for_W = ctx.needs_input_grad
        ctx.save_for_backward(x if for_W else None, W if for_x else None)
        return x @ W.T
        # END SOLUTION

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """g: (N, outputs) -> the gradients of x and of W; None for one that nobody needs"""
        # BEGIN SOLUTION
        x, W = ctx.saved_tensors
        gradient_of_x = None if W is None else g @ W
        gradient_of_W = None if x is None else g.T @ x
        return gradient_of_x, gradient_of_W
        # END SOLUTION


check("2.2", FrugalLinear)

# %% [markdown]
# <details><summary>Hint 1: what to keep</summary>
#
# It goes crosswise in the table: x is kept for the gradient of W, and W for the gradient of x. `save_for_backward` takes
# None in place of a tensor that nobody needs.
#
# </details>
# <details><summary>Hint 2: the way back</summary>
#
# `ctx.saved_tensors` gives back what you kept, in the same order, None included. So a None tells `backward` which
# gradient to leave out.
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)
#
# With W frozen, the layer keeps less. How much less is it in a whole model?
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
        run: one forward pass of the model, and perhaps a backward pass after it.
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
# Your function gives a sum. For its parts, we walk backward through autograd's graph of one block of CLIP, and ask each
# operation what it saved. We count in *widths*: one width is d = 768 numbers a token, so q, k and v together are three. At
# first everything learns.


# %%
def by_operation(y: Tensor, model: nn.Module) -> pd.DataFrame:
    """What each operation behind y keeps, in widths of y, in the order of the forward pass."""
    seen = {p.untyped_storage().data_ptr() for p in model.parameters()}  # these do not count
    operations = [y.grad_fn]
    for operation in operations:  # the list grows while we read it
        inputs = [function for function, _ in operation.next_functions if function]
        operations += [function for function in inputs if function not in operations]
    rows = []
    for operation in sorted(operations, key=lambda function: function._sequence_nr()):
        for name in (name for name in dir(operation) if name.startswith("_saved_")):
            tensor = getattr(operation, name)
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in seen:
                seen.add(tensor.untyped_storage().data_ptr())
                widths = tensor.untyped_storage().nbytes() / y.nbytes
                rows.append((operation.name(), name[7:], tuple(tensor.shape), widths))
    return pd.DataFrame(rows, columns=["operation", "keeps", "shape", "widths"])


tokens = torch.rand(1, 197, 768, requires_grad=True)  # (B, N, d)
block = MODELS["block"]()
table = by_operation(block(tokens), block)
print(table[table.widths > 0.1].round(2).to_string(index=False))  # the norms' means are tiny
print(f"all: {table.widths.sum():.2f} widths")

# %% [markdown]
# The rows follow the forward pass. A norm keeps its input. `Addmm` is a matrix with a bias, here that of q, k and v; it keeps
# its x, as your layer does, under the name `mat1`. Attention keeps q, k and v, in one storage three wide, and its output
# (also out's input, counted once). A second norm follows, and the feed-forward: a matrix, the activation function, a
# matrix. CLIP's activation function is a product, `h * sigmoid(1.702 * h)`, so its gradient needs both factors. Each is 4
# widths, together 8: **the largest part of all.**
#
# Now LoRA freezes all weights, and gives q, k, v and out their pairs. How many widths are still kept? **Go through the rows,
# and write your sum below.**

# %%
WIDTHS = 17.0  # your guess: the widths kept with LoRA of rank 32

ways = {
    "everything": None,
    "LoRA, rank 32": LoRAConfig(32),
    "LoRA, rank 8": LoRAConfig(8),
    "Serial LoRA, rank 32": SerialLoRAConfig(32),
}
bars, totals = {}, {}
for name, config in ways.items():
    block = MODELS["block"]()
    if config:
        inject(block, config)
    bars[name] = measure.in_parts(by_operation(block(tokens), block))
    totals[name] = yours("2.3")(block, partial(block, tokens)) / tokens.nbytes
display_figure(plot_kept(bars, totals, WIDTHS))

# %% [markdown]
# The bold sums are your function's; the bars, from the graph, agree.
#
# **A frozen matrix does not keep its input.** So the light blue part shrinks from 6 widths to 1: the feed-forward's two
# inputs are gone, and what q, k and v read stays, because A learns from it.
#
# **Norms, attention and the activation function keep 2 + 4 + 8 widths in every row.** A frozen matrix hands down g W, which
# does not contain x. These three are not linear: their gradient does contain their inputs, so they keep them as long as
# a pair below learns.
#
# Only the purple part, x Aᵀ between A and B, depends on the rank: 0.17 widths for LoRA's four pairs, 0.04 for Serial
# LoRA's one. **That is a quarter, of very little.**
#
# ## The whole step
#
# Now all of CLIP takes a step of Adam with one picture and caption; in two ways only the upper half of its blocks has pairs.
# We save the adapter's file, add up the parts of the memory, and measure the whole: `with_peak` lets PyTorch's profiler
# follow every allocation, and returns the most that was in use at once. (The loss is a mere product of picture and
# caption, which is enough here.)
#
# Gradients are missing from the sum: the backward pass makes them while it frees the much larger kept tensors, so memory
# is fullest just before. For 32 pictures we multiply what is kept; the last printed line tests this on the last model, with
# two.

# %%
upper = range(6, 12)  # of 12 blocks in each tower
adapters = {name: config for name, config in ways.items() if config}
adapters["LoRA, upper half"] = LoRAConfig(32, blocks=upper)
adapters["Serial LoRA, upper half"] = SerialLoRAConfig(32, blocks=upper)
sizes = {}  # way -> bytes of each part
for name, config in adapters.items():
    with torch.device("meta"):
        model = inject(MODELS["CLIP"](), config)
    learn = 4 * trained(model)  # bytes, as float32 has four
    weights = sum(p.nbytes for p in model.parameters()) - learn
    pairs = 3 * learn  # with Adam's two moments
    step = partial(measure.adam_step, model)
    held, peak = measure.with_peak(partial(yours("2.3"), model, step))
    with TemporaryDirectory() as folder:
        file = save_adapter(model, f"{folder}/adapter").stat().st_size
    sizes[name] = [file, weights, pairs, held, weights + pairs + held, peak]

columns = ["file", "weights", "pairs", "kept", "sum", "measured"]
table = pd.DataFrame.from_dict(sizes, "index", columns=columns) / 1e6
print("MB, with one picture a step; the pairs with Adam's moments")
print(table.round(1))
two = yours("2.3")(model, partial(measure.clip_loss, model, pictures=2))
print(f"\nwith two pictures, {two / held:.2f} times as much is kept as with one")
display_figure(plot_memory(table, 32, SAVED))

# %% [markdown]
# **The file is a quarter, and the step is nearly as large as before.** Serial LoRA saves 4.7% of the memory with one
# picture, measured, and 1.5% with 32, computed. Whoever guessed three quarters took parameters for memory. Only the green part shrinks to a
# quarter, from 47.2 MB to 11.8; what is kept hardly changes, and grows with every picture. LoRA of rank 8 saves the same:
# the number of parameters counts here, not the method. (Measurement and sum differ by 2 MB, inputs and tensors that
# live for a moment.)
#
# So if your memory is full, keep the gradient out of the lower blocks. **With pairs in the upper half alone, LoRA saves
# 44.1% with 32 pictures, and Serial LoRA 44.9%**, because no gradient has to go below the lowest pair.
#
# ## Quiz
#
# **1. You adapt the lower half of CLIP's blocks alone. Does that halve what is kept, too?**
#
# <details><summary>Answer</summary>
#
# No. The gradient passes through the upper blocks on its way down, so each of them still keeps 2 + 4 + 8 widths, in norms,
# attention and activation function, of the 15.06 that it keeps with a Serial LoRA of its own.
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
# Three quarters of the adapters' disk: a thousand files take 15.8 GB with LoRA, and 4.0 GB with Serial LoRA. CLIP itself
# is stored only once, in 0.6 GB. (LoRA at rank 8 would save as much.)
#
# </details>
#
# ## What to remember
#
# - Serial LoRA has a quarter of LoRA's parameters, at equal ranks, if LoRA has pairs on all four matrices and these are
#   square.
# - A frozen matrix does not keep its input. What is not linear keeps its tensors, wherever a gradient passes.
# - So a quarter of the parameters makes a quarter of the file, and saves 1.5% of a step's memory with 32 pictures. LoRA of
#   a quarter of the rank does the same.
#
# The sizes are for float32 on a CPU. It stays open what a GPU keeps in half precision, and whether pairs in the upper half
# learn as well.
#
# Next: [03 · Build Serial LoRA](03_build_serial_lora.ipynb).
