# %% [markdown]
# # 02 · The count, proved
#
# The paper on Serial LoRA (Zhong et al., 2025) promises a quarter of LoRA's parameters. <!-- from the paper's title
# page: 2025 --> But LoRA can have a quarter too: take a quarter of its rank. So is the promise true? And a quarter of
# *which* LoRA?
#
# You will count on the real CLIP, SAM and Stable Diffusion 3, without downloading a single weight. First the picture:
# the four matrices of one attention block of CLIP, 768 × 768, <!-- from ViT-B/16's configuration: 768 --> drawn to
# scale with pairs of rank 32, <!-- from the paper, Section III.B: 32 --> the paper's rank for CLIP. The squares at the
# right compare how many parameters all the pairs of a method hold.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
from fractions import Fraction

import open_clip
import torch
from diffusers import SD3Transformer2DModel
from segment_anything import sam_model_registry

from serial_lora import LoRAConfig, SerialLoRAConfig, inject
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.lessons.l02_count.figures import plot_quarter
from serial_lora_course.plots.style import display_figure

lesson_card("02")
display_figure(plot_quarter(width=768, rank=32))

# %% [markdown]
# ## One block
#
# That is the whole lesson in one picture. LoRA, as we infer from the paper's text and its Table I, has a pair for each
# of q, k, v and out. Serial LoRA has one pair, which changes the tokens before q, k and v read them, and none for out.
# Write d for the width and r for the rank. A pair is A, of shape (r, d), and B, of shape (d, r), so it holds 2dr
# parameters:
#
# $$\text{LoRA: } 4 \cdot 2dr = 8dr \qquad\qquad \text{Serial LoRA: } 2dr$$
#
# Both counts have the same d and the same r, so the ratio is 4 whatever these are. But matrices are not always square,
# and not everybody adapts four of them. So first write a count for any set of matrices.
#
# ### Exercise 2.1 · The size of any LoRA
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 4 |
#
# For a matrix that takes `inputs` numbers and returns `outputs` numbers, A has the shape (rank, inputs) and B the
# shape (outputs, rank). There is no bias. Return how many parameters all pairs hold together. The check builds the
# tensors and counts.


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
# ## Three real models, without their weights
#
# A formula may leave something out that a real model has. So we take the real classes at their real size. They would
# need gigabytes of memory, but one line avoids that: on the **meta** device a tensor has a shape and no storage.
#
# The formula needs the width of every attention block. We read it from the matrices that make q, which we find by their
# names: CLIP and SAM keep q, k and v in one tall matrix, SD3 keeps them apart. In all three, the number of columns is
# the width of a token.
#
# Then we put the adapters in, and count what can be trained. `inject` freezes everything else, so one adapter too many,
# or one layer left unfrozen, would change the count. Expect your formula's numbers, and a ratio of 4. (CLIP has two
# towers of twelve blocks, <!-- from ViT-B/16's configuration: 12 --> one for pictures and one for text, of different
# widths.)

# %%
parameters = yours("2.1")
MAKE = {
    "CLIP ViT-B/16": lambda: open_clip.CLIP(**open_clip.get_model_config("ViT-B-16-quickgelu")),
    "SAM ViT-B": lambda: sam_model_registry["vit_b"](),
    "SD3 medium": lambda: SD3Transformer2DModel(
        num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    ),
}


def on_meta(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return MAKE[name]()


MAKES_Q = ("in_proj_weight", "qkv.weight", "to_q.weight")  # in open_clip, SAM and SD3
WIDTHS = {}  # name to the width of each attention block
for name in MAKE:
    named = on_meta(name).named_parameters()
    found = {key: tuple(p.shape) for key, p in named if key.endswith(MAKES_Q)}
    WIDTHS[name] = [columns for _, columns in found.values()]
    first, last = list(found.items())[0], list(found.items())[-1]
    print(f"{name}: {len(found)} blocks, from", *first, "to", *last, sep="\n    ")

# %% tags=["nbval-check-output"]
RANKS = {"CLIP ViT-B/16": 32, "SAM ViT-B": 64, "SD3 medium": 64}  # the paper's


def trained(name: str, config: LoRAConfig | SerialLoRAConfig) -> int:
    model = inject(on_meta(name), config)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


for name, widths in WIDTHS.items():
    r = RANKS[name]
    counted = trained(name, LoRAConfig(rank=r)), trained(name, SerialLoRAConfig(rank=r))
    formula = tuple(sum(parameters([(d, d)] * pairs, r) for d in widths) for pairs in (4, 1))
    print(f"{name}, rank {r}: LoRA {counted[0]:,}, Serial LoRA {counted[1]:,}")
    print(f"  as the formula says: {counted == formula}; ratio {Fraction(*counted)}")

both = [
    trained("SD3 medium", kind(rank=64, stream="both")) for kind in (LoRAConfig, SerialLoRAConfig)
]
print(f"SD3, text tokens too: {both[0]:,} and {both[1]:,}; ratio {both[0] / both[1]:.4f}")

# %% [markdown]
# Exactly 4, on all three models, as in the paper's Table I.
#
# And a little less than 4 in the last line. SD3 carries picture tokens and text tokens, and each have matrices of their
# own. After its last block it has no more use for the text tokens, so that block has no out matrix for them, and LoRA
# has one pair fewer. Our formula would not have told us. Counting did.
#
# ## A quarter of which LoRA?
#
# The 4 rests on three things: equal ranks, a pair on each of **four** matrices, and square matrices. But many people
# give pairs to other matrices. Guess before you look: if LoRA has pairs on q and v only, as in LoRA's own paper, how
# much does Serial LoRA save?

# %%
d, r = 768, 32
PLACEMENTS = {  # where the pairs are: (inputs, outputs) of each matrix, and the rank
    "q, k, v and out: the paper's baseline": ([(d, d)] * 4, r),
    "q, k and v: CLIP-LoRA's default": ([(d, d)] * 3, r),
    "q and v: LoRA's own experiments": ([(d, d)] * 2, r),
    "fused qkv (one A, one tall B)": ([(d, 3 * d)], r),
    "fused qkv, and out": ([(d, 3 * d), (d, d)], r),
    "q, k, v and out, k and v a quarter as wide": ([(d, d), (d, d // 4), (d, d // 4), (d, d)], r),
    "q, k, v and out, at a quarter of the rank": ([(d, d)] * 4, r // 4),
}
serial = parameters([(d, d)], r)
for name, (shapes, rank) in PLACEMENTS.items():
    print(f"{Fraction(parameters(shapes, rank), serial)!s:>5} times Serial LoRA: {name}")

# %% [markdown]
# Four in the first row, and in no other. For people who adapt q and v it saves half. Where q, k and v are fused into
# one tall matrix, its pair has one A, dr parameters, and a B three times as tall, 3dr: twice Serial LoRA's 2dr. And
# look at the last row: LoRA can have a quarter of the parameters too, simply by taking a quarter of the rank.
#
# So a fair comparison asks two questions. At the same *rank*, how much does sharing lose? And at the same *size*,
# which method is better? For the second you need to know which rank gives LoRA the same size.
#
# ### Exercise 2.2 · The rank of equal size
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 8 |
#
# Return the largest rank at which LoRA on the given matrices holds at most as many parameters as Serial LoRA's one
# pair. If not even rank 1 fits, return 0.


# %% tags=["exercise"]
def rank_of_equal_size(shapes: list[tuple[int, int]], width: int, rank: int) -> int:
    """The largest LoRA rank that costs no more than Serial LoRA.

    Args:
        shapes: (inputs, outputs) of every matrix to which LoRA gives a pair.
        width: the size of a token, on which Serial LoRA's pair works.
        rank: Serial LoRA's rank.
    """
    # BEGIN SOLUTION
    of_one_rank = sum(inputs + outputs for inputs, outputs in shapes)
    return 2 * width * rank // of_one_rank
    # END SOLUTION


check("2.2", rank_of_equal_size)

# %% [markdown]
# <details><summary>Hint 1: what one rank costs</summary>
#
# LoRA's size is its rank times the sum of inputs + outputs. How often does that sum fit into Serial LoRA's size?
#
# </details>
# <details><summary>Hint 2: "how often it fits"</summary>
#
# `//` divides and rounds down. Do not round down earlier: 2 · width · rank first, then divide once.
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)

# %%
equal_rank = yours("2.2")
for name, (shapes, _) in list(PLACEMENTS.items())[:4]:
    print(f"rank {equal_rank(shapes, d, r):2} holds no more than Serial LoRA at rank {r}: {name}")

name = "CLIP ViT-B/16"
frozen = 4 * sum(p.numel() for p in on_meta(name).parameters()) / 1e6  # MB in float32
for method, config in (("LoRA", LoRAConfig(rank=r)), ("Serial LoRA", SerialLoRAConfig(rank=r))):
    pairs = 4 * 4 * trained(name, config) / 1e6  # themselves, their gradients, Adam's two means
    print(f"{method}: {frozen:.0f} MB of CLIP + {pairs:.0f} MB to train = {frozen + pairs:.0f} MB")

# %% [markdown]
# Remember that LoRA of rank 8 has the size of Serial LoRA of rank 32. So the promise holds, and is no reason to change
# your code: LoRA can keep it as well. The reason would be that Serial LoRA learns more *at that size*. Lesson 04 trains
# both. (The last two lines count what training keeps in memory, without activations. Quiz 3 needs them.)
#
# ## Quiz
#
# **1. Your model has width 1024 and 24 blocks. You double the rank. What does the ratio become?**
#
# <details><summary>Answer</summary>
#
# It stays 4. Rank, width and number of blocks are in both counts and cancel.
#
# </details>
#
# **2. A colleague adapts q and v with LoRA and reads that Serial LoRA "needs a quarter". Is that true for this
# colleague?**
#
# <details><summary>Answer</summary>
#
# No, it needs a half. Their LoRA has two pairs for square matrices in each block, and Serial LoRA has one.
#
# </details>
#
# **3. An adapter has a quarter of the size. Does it need a quarter of the memory in training?**
#
# <details><summary>Answer</summary>
#
# No. The last output counts CLIP with the adapter's gradients and optimizer state: 614 MB in place of 661. The
# activations come on top of both, and a smaller adapter hardly makes those smaller.
#
# </details>
#
# ## What to remember
#
# - A pair holds rank · (inputs + outputs) parameters: 2dr when square.
# - At attention, the paper's place, LoRA on q, k, v and out holds 8dr in a block, Serial LoRA 2dr: exactly 4, on the
#   real CLIP, SAM and SD3.
# - Against LoRA on q, k and v the ratio is 3, on q and v it is 2, and against LoRA at a quarter of the rank it is 1.
#   Always ask which LoRA is meant.
# - Count on the real model. With `torch.device("meta")` that costs nothing, and it finds what a formula forgets.
#
# The last point works for any model that you can construct: you know the size of an adapter before you download
# anything.
#
# Next: [03 · Build Serial LoRA](03_build_serial_lora.ipynb).
