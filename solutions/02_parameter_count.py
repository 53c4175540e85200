# %% [markdown]
# # 02 · The parameter count, proved
#
# **What you will be able to do**
#
# - say how many parameters LoRA and Serial LoRA train on any transformer, from its widths and depths;
# - prove that number on the real CLIP, SAM and Stable Diffusion 3, in three independent ways, in
#   seconds and without their weights;
# - say under which assumptions the ratio is exactly 4, and name placements where it is not;
# - read a parameter count in a paper, and find out when its unit is not what it says.

# %%
try:
    import serial_lora_course  # before PyTorch, whose waiting threads it lets sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
from fractions import Fraction

import torch
from IPython.display import display
from torch import nn

from serial_lora import LoRAConfig, SerialLoRAConfig, adapter_parameters, count_parameters, inject
from serial_lora.attention import find_attention_sites
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.models.architectures import ARCHITECTURES
from serial_lora_course.plots.style import display_figure
from serial_lora_course.plots.tables import display_table

lesson_card("02")

# %% [markdown]
# There is nothing to load and nothing to train in this lesson: counting needs no weights. After the
# imports you can start at any section.

# %% [markdown]
# ## One pair
#
# A low-rank pair for a matrix with `inputs` columns and `outputs` rows is `A` (r, inputs) and
# `B` (outputs, r). That is all: no bias, no scale to learn. So its size is
# r · inputs + outputs · r. Before we trust a formula, we make the tensors and let PyTorch count.
# The *meta* device makes tensors that have a shape and no memory, which is all a count needs.

# %%
rank, width = 32, 768  # change this and run again
A = torch.empty(rank, width, device="meta")  # (r, d)
B = torch.empty(width, rank, device="meta")  # (d, r)

together = A.numel() + B.numel()
print(
    f"A: {A.numel():,} numbers, B: {B.numel():,}, together {together / width**2:.1%} of W's {width**2:,}"
)

# %% [markdown]
# That is CLIP's width and the paper's rank. At twice the rank, the pair is twice as large.

# %% [markdown]
# ### Exercise 2.1 · The size of a pair
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 3 |
#
# Write the count for any matrix, square or not. The check makes the tensors and compares.


# %% tags=["exercise"]
def pair_size(inputs: int, outputs: int, rank: int) -> int:
    """The number of elements of A (rank, inputs) and B (outputs, rank) together."""
    # BEGIN SOLUTION
    return rank * inputs + outputs * rank
    # END SOLUTION


check("2.1", pair_size)

# %% [markdown]
# <details><summary>Hint 1: one matrix at a time</summary>
#
# A matrix with a rows and b columns has a · b elements. Write the product for `A`, then for `B`.
#
# </details>
# <details><summary>Hint 2: a number to test with</summary>
#
# For 6 inputs, 3 outputs and rank 1 the pair holds 6 + 3 numbers.
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)

# %% [markdown]
# ## One attention block
#
# A block has four square matrices: q, k, v and out. **LoRA**, as the paper uses it, gives each its
# own pair. **Serial LoRA** has one pair, which changes the tokens before q, k and v read them, and
# leaves the `out` matrix as it is. Write d for the width and r for the rank:
#
# | | pairs in a block | parameters in a block |
# |---|---|---|
# | LoRA on q, k, v and out | 4 | 4 · 2 d r = 8 d r |
# | Serial LoRA | 1 | 2 d r |
#
# The next cell counts a block without the formula: it lists the tensors.

# %%
size_of = yours("2.1")
rank, width = 32, 768  # change this and run again
pair, listed = [(rank, width), (width, rank)], {}  # A and B
for method, block in (("LoRA", 4 * pair), ("Serial LoRA", pair)):
    listed[method] = sum(torch.empty(shape, device="meta").numel() for shape in block)
    formula = len(block) // 2 * size_of(width, width, rank)
    print(
        f"{method:12} {len(block)} tensors, {listed[method]:,} numbers; by the formula {formula:,}"
    )

times = Fraction(listed["LoRA"], listed["Serial LoRA"])
print(f"LoRA has {times} times as many numbers in a block")

# %% [markdown]
# **What this shows.** Four, exactly: four pairs, where Serial LoRA has one of the same size.
#
# With another rank or width the counts move and the factor does not, since both methods have the same d and
# the same r.

# %% [markdown]
# ## A whole model
#
# A transformer is a stack of blocks of one width: a *tower*. CLIP has two towers, one that reads
# pictures and one that reads text, and they differ in width. A model's count is the sum over its
# towers of depth times the block's count.

# %%
for key in ("clip", "sam", "sd3"):  # change this and run again: "clip-large", "dinov2-base"
    item = ARCHITECTURES[key]
    towers = ", ".join(f"{t.depth} blocks of width {t.width} ({t.name})" for t in item.towers)
    print(f"{item.title:28} {towers}; the paper's rank: {item.rank}")

# %% [markdown]
# ### Exercise 2.2 · Serial LoRA on a whole model
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 5 |
#
# Given the towers as (width, depth) and one rank, return how many parameters Serial LoRA trains.


# %% tags=["exercise"]
def serial_lora_total(towers: list[tuple[int, int]], rank: int) -> int:
    """Serial LoRA's parameters on a model.

    Args:
        towers: (width, depth) of each stack of attention blocks.
        rank: the rank of every pair.
    """
    # BEGIN SOLUTION
    return sum(depth * 2 * width * rank for width, depth in towers)
    # END SOLUTION


check("2.2", serial_lora_total)

# %% [markdown]
# <details><summary>Hint 1: how many pairs?</summary>
#
# One for each attention block: not one for each matrix, and not one for the whole tower.
#
# </details>
# <details><summary>Hint 2: towers differ</summary>
#
# The width belongs to the tower. Count each tower by itself, then add.
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)

# %% [markdown]
# ## The real models, without their weights
#
# A formula can be right about a model that does not exist. So we take the real classes: open_clip's
# CLIP, segment-anything's SAM, diffusers' SD3 transformer, far too large to train on a laptop. On the
# meta device they are built in seconds and take no memory.
#
# `find_attention_sites` walks a model and returns one entry for each attention block. Expect as many
# for CLIP as the two depths printed above add up to.

# %%
clip = ARCHITECTURES["clip"].on_meta()  # change this and run again: "sam-huge"
sites = find_attention_sites(clip)

total = sum(p.numel() for p in clip.parameters())
for site in (sites[0], sites[-1]):
    print(f"{site.name}: tower {site.tower}, block {site.block}, width {site.width}")
device = next(clip.parameters()).device
print(f"{len(sites)} attention blocks in a model of {total:,} parameters, on the device {device}")

# %% [markdown]
# The model describes itself: nobody told the function the widths. `inject` goes by this list, so what it
# puts in does not depend on the table above.

# %% [markdown]
# ### Exercise 2.3 · Count what can be trained
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 5 |
#
# The third way to count is to put the adapters in and look at every parameter. Write that function. Two
# details matter: frozen parameters do not count, and a tensor that two modules share counts once.


# %% tags=["exercise"]
def count_trainable(model: nn.Module) -> int:
    """The number of elements of all parameters that ask for a gradient, each tensor once."""
    # BEGIN SOLUTION
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
    # END SOLUTION


check("2.3", count_trainable)

# %% [markdown]
# <details><summary>Hint 1: tensors and elements</summary>
#
# `len(list(model.parameters()))` says how many tensors there are. `numel()` says how many elements
# one tensor has.
#
# </details>
# <details><summary>Hint 2: who removes the duplicates?</summary>
#
# `model.parameters()` already visits a shared tensor once. Walking `model.modules()` and adding up
# what each holds would not.
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)

# %% [markdown]
# ## The proof
#
# Now all three ways, for three models and two methods:
#
# 1. **closed form**: depth · 2 d r for Serial LoRA (your formula), four times that for LoRA;
# 2. **enumeration**: go through the names of the real model's weights, and add up what a pair holds
#    wherever a matrix makes q;
# 3. **numel()**: inject the adapters into the real model, and count what can be trained.
#
# No two of them share code: the first reads a table, the second names, the third the structure that
# `inject` finds. First, which functions count, yours or the package's:

# %%
total_of = yours("2.2")
trainable_in = yours("2.3")
CONFIGS = {"LoRA": LoRAConfig, "Serial LoRA": SerialLoRAConfig}
PAIRS = {"LoRA": 4, "Serial LoRA": 1}
MAKES_Q = ("in_proj_weight", "qkv.weight", "to_q.weight")  # in open_clip, SAM and SD3

# %% [markdown]
# Expect three equal numbers in every line, and a ratio of exactly 4. This cell is a *proof cell*:
# its output is stored, and every test run compares it, number by number.

# %% tags=["nbval-check-output"]
for key in ("clip", "sam", "sd3"):
    item = ARCHITECTURES[key]
    print(f"{item.title}, rank {item.rank}")
    for method, pairs in PAIRS.items():
        closed = pairs * total_of([(t.width, t.depth) for t in item.towers], item.rank)
        model = item.on_meta()
        widths = [p.shape[1] for name, p in model.named_parameters() if name.endswith(MAKES_Q)]
        enumerated = sum(pairs * 2 * width * item.rank for width in widths)
        injected = trainable_in(inject(model, CONFIGS[method](rank=item.rank)))
        assert closed == enumerated == injected
        print(f"  {method:12} {closed:>11,} = {enumerated:>11,} = {injected:>11,}")
    print("  ratio", Fraction(item.lora(), item.serial_lora()))

# %% [markdown]
# **What this shows.** Formula, enumeration and `numel()` agree on all three models, and the ratio is
# exactly 4. The injected count is the *trainable* count of the whole model, so nothing else can be trained.
# The next picture shows the sizes.

# %%
from serial_lora_course.lessons.l02_count.figures import plot_counts

display_figure(plot_counts())

# %% [markdown]
# One detail on SD3. Its blocks carry two kinds of tokens, picture and text, each with its own
# matrices. The paper's count comes closest to the picture stream alone, so that is the default.
# Adapting both streams should double the count. Look closely at the ratio.

# %%
rank, ratios = 64, {}  # change this and run again: another rank
for stream in ("image", "text", "both"):
    trainable = {}
    for method, config in CONFIGS.items():
        model = inject(ARCHITECTURES["sd3"].on_meta(), config(rank=rank, stream=stream))
        trainable[method] = count_parameters(model).trainable
    lora, serial = trainable["LoRA"], trainable["Serial LoRA"]
    print(f"stream={stream:6} {lora:>11,} and {serial:>10,}")
    ratios[stream] = lora / serial

print({stream: f"{ratio:.3f}" for stream, ratio in ratios.items()})

# %% [markdown]
# **What this shows.** On the image stream the ratio is four. In the last block the text stream has no
# output projection to adapt, so there it is a little less.
#
# The last block of SD3 has no use for what attention gives its text tokens, so there is no `out` matrix
# there, and LoRA has one pair fewer. The formula would have missed that; the count of the real model did not.

# %% [markdown]
# ## Exactly 4, and when it is not
#
# The ratio rests on three assumptions. The ranks are equal. The baseline has a pair on **four**
# matrices. And these matrices are **square**, as wide as the tokens. Drop one, and the ratio moves.

# %% [markdown]
# ### Exercise 2.4 · The ratio for any placement
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 8 |
#
# LoRA puts a pair on matrices of the given (inputs, outputs). Serial LoRA has one square pair of the
# given width. Return LoRA's size over Serial LoRA's, at equal rank, as an exact `Fraction`. The rank
# is not an argument: find out why it need not be.


# %% tags=["exercise"]
def size_ratio(shapes: list[tuple[int, int]], width: int) -> Fraction:
    """LoRA's parameters over Serial LoRA's in one block, at equal rank.

    Args:
        shapes: (inputs, outputs) of every matrix that LoRA gives a pair.
        width: the size of a token, on which Serial LoRA's pair works.
    """
    # BEGIN SOLUTION
    lora = sum(inputs + outputs for inputs, outputs in shapes)  # times the rank
    serial = 2 * width  # times the same rank
    return Fraction(lora, serial)
    # END SOLUTION


check("2.4", size_ratio)

# %% [markdown]
# <details><summary>Hint 1: what cancels</summary>
#
# A pair for (inputs, outputs) holds rank · (inputs + outputs). The rank stands above and below the
# fraction line.
#
# </details>
# <details><summary>Hint 2: the two parts</summary>
#
# Above the line: the sum of inputs + outputs over all shapes. Below: width + width.
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)

# %% [markdown]
# The table puts the same question to placements that people really use. Two of them need explaining.
# Some models keep q, k and v as *one* matrix of three times the height, a *fused* qkv; a library that
# sees one matrix gives it one pair. And some models have fewer key heads than query heads
# (*grouped-query attention*), so that k and v are narrower than q. Look for the rows that are not 4;
# the last column says who does it this way.

# %%
from serial_lora_course.models.architectures import ratio_frame, size_ratio

ratio_of = yours("2.4")
placements = ratio_frame(width=768, rank=32, ratio_of=ratio_of)  # change this and run again
display_table(placements)

# %% [markdown]
# **What this shows.** Four in the first row, the paper's. In all others it is between one and 3.25.
# Say which LoRA you mean.
#
# "A quarter of LoRA" is a statement about *one* baseline, the one that the paper compares with. The last
# row asks the other question: LoRA at a quarter of the rank costs what Serial LoRA costs. A fair comparison
# shows both, equal rank and equal budget; lesson 04 does.

# %% [markdown]
# ## Move it yourself
#
# Rank, width and depth, with both counts and their ratio. Before you touch the sliders: which of the
# three can change the ratio? (Without a running kernel you see a still picture.)

# %%
from serial_lora_course.lessons.l02_count.panel import count_panel

panel = count_panel(rank=32, width=768, depth=12)  # change this and run again

# %% [markdown]
# **What this shows.** Both counts grow in proportion to each of the three numbers, and the ratio stays where
# it is.

# %% [markdown]
# ## What the paper prints
#
# Now compare with the paper's own figures. Each row of the table is one printed number, and beside it
# stands the *exact* count in every unit in which somebody might have printed it: in millions, in
# units of 1024 x 1000, in bytes. Where a unit gives the printed digits, it is in bold. A figure printed
# in M should be bold under *millions of parameters*, one in MB under *float32 bytes in MB*. Are they?

# %%
from serial_lora_course.lessons.l02_count.tables import audit_frame, readings_frame

display_table(readings_frame())

# %% [markdown]
# The same comparison, figure by figure:

# %%
audited = audit_frame()
display_table(audited)
display(audited["figure"].value_counts())

# %% [markdown]
# For CLIP the digits are right in an unusual unit. For SAM, Table I prints bytes and calls them parameters,
# while Table IV's caption names the right unit. For SD3 a small excess is left, which nothing in the method
# explains. None of this touches the ratio: each printed pair of numbers divides to 4 within its rounding.

# %% [markdown]
# ## What an adapter weighs
#
# A byte is not a parameter, so one last count gives both. In float32 each number takes four bytes.
# Expect a few megabytes for CLIP's and SAM's adapter and more for SD3's, and a smaller share of the
# largest model.

# %%
weighed = []
for key in ("clip", "sam", "sd3"):
    item = ARCHITECTURES[key]
    rank = item.rank  # change this and run again: item.rank // 2
    model = inject(item.on_meta(), SerialLoRAConfig(rank=rank))
    size = sum(p.nbytes for p in adapter_parameters(model)) / 1e6  # in MB
    weighed.append(f"{item.title}: {size:.2f} MB, {count_parameters(model).share:.2%} of the model")
print("in float32:", *weighed, sep="\n")

# %% [markdown]
# **What this shows.** A few megabytes, and less than 2% of any of the models.
#
# Half the rank would halve them. "Parameters" and "memory" are different things, though: training also
# needs gradients, optimizer state, and above all activations, which no count of parameters tells.

# %% [markdown]
# ## Quiz
#
# **1. Your model has width 1024 and depth 24. Doubling the rank changes the ratio to what?**
#
# <details><summary>Answer</summary>
#
# It stays 4. Both methods are proportional to the rank, so it cancels; the same holds for width and
# depth.
#
# </details>
#
# **2. A colleague adapts q and v only, with LoRA, and reads that Serial LoRA "needs a quarter". Is
# that so for them?**
#
# <details><summary>Answer</summary>
#
# No. They have two square pairs a block, so Serial LoRA needs half of theirs. The quarter refers
# to LoRA with pairs on q, k, v and out.
#
# </details>
#
# **3. Why does the proof use three counts, when the closed form is enough to compute with?**
#
# <details><summary>Answer</summary>
#
# Each can be wrong in its own way. The formula can describe a model that is not the one that is meant; the
# enumeration can miss blocks; the injection can put in too much or leave something unfrozen. When
# three independent ways agree, these mistakes are excluded together.
#
# </details>

# %% [markdown]
# ## Key points
#
# - A pair holds rank · (inputs + outputs) numbers: 2 d r when square.
# - LoRA on q, k, v and out: 8 d r a block. Serial LoRA: 2 d r. The ratio is exactly 4.
# - It needs equal ranks, four matrices, all square. Against q, k, v it is 3; against q, v it is 2.
# - Closed form, enumeration and `numel()` agree on the real CLIP, SAM and SD3, on the meta device.
# - Check printed counts: a byte is not a parameter.

# %% [markdown]
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer": Table I lists the counts, the captions of
# Tables II to IV repeat them, section II-C gives the shared pair (equation 3), and section III-C calls
# it a structural reduction. That LoRA adapts q, k, v and out is in section II-A (equation 2).
#
# Next: [03 · Build Serial LoRA](03_build_serial_lora.ipynb).
