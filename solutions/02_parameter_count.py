# %% [markdown]
# # 02 · The count, proved
#
# The paper on Serial LoRA (Zhong et al., 2025) promises a quarter of LoRA's parameters. <!-- from the paper's title
# page: 2025 --> Is that true? And a quarter of *which* LoRA?
#
# You will count on the real CLIP, SAM and Stable Diffusion 3, without downloading a single weight. First the picture:
# the four matrices of one attention block of CLIP, 768 × 768, <!-- from ViT-B/16's configuration: 768 --> drawn to
# scale with pairs of rank 32, <!-- from the paper, Section III.B: 32 --> the paper's rank for CLIP. The filled squares
# at the right are as large as all the pairs of a method together, in the same scale.

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
# LoRA, as we infer from the paper's text and its Table I, has a pair for each of q, k, v and out. Serial LoRA has one
# pair, which changes the tokens before q, k and v read them, and none for out. So the picture has four pairs and one.
# But matrices are not always square, and not everybody adapts four of them: write the count for any set of matrices.
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
# For a square matrix of width d, a pair of rank r holds 2dr parameters. So in each block
#
# $$\text{LoRA: } 4 \cdot 2dr = 8dr \qquad\qquad \text{Serial LoRA: } 2dr$$
#
# and the ratio is 4, whatever d and r are. But a formula may leave something out that a real model has. So we take the real classes at their real size. They would
# need gigabytes of memory, but one line avoids that: on the **meta** device a tensor has a shape and no storage.
#
# The formula needs the width of every attention block. We read it from the matrices that make q, which we find by their
# names: CLIP and SAM keep q, k and v in one tall matrix, SD3 keeps them apart. In all three, the number of columns is
# the width of a token.
#
# Then we put the adapters in, and count what can be trained. `inject` freezes everything else, so one adapter too many,
# or one layer left unfrozen, would change the count. At the end SD3's text tokens get pairs too: is the ratio 4 there?
# (CLIP has two towers of twelve blocks, <!-- from ViT-B/16's configuration: 12 --> one for pictures and one for text,
# of different widths.)

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
print(f"SD3, text tokens too: LoRA {both[0]:,}, Serial LoRA {both[1]:,}")
one = parameters([(1536, 1536)], 64)
print(f"  that is {both[0] // one} pairs and {both[1] // one}; ratio {both[0] / both[1]:.4f}")

# %% [markdown]
# Exactly 4 on CLIP, SAM and SD3's picture tokens. With the text tokens it is a little less: Serial LoRA has 48 pairs,
# and LoRA not four times as many. One is missing. Which?
#
# <details><summary>Answer</summary>
#
# SD3 carries picture tokens and text tokens, and each kind has matrices of its own. After its last block it has no more
# use for the text tokens, so that block has no out matrix for them, and LoRA has one pair fewer.
#
# </details>
#
# The formula was right; our list of matrices was not. Counting told.
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
# Four in the first row, and in no other. Against LoRA on q and v it saves half, and adapts k too. Where q, k and v are
# fused into one tall matrix, its pair has one A, dr parameters, and a B three times as tall, 3dr: twice Serial LoRA's
# 2dr. And look at the last row: LoRA can have a quarter of the parameters too, simply by taking a quarter of the rank.
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
total = {}
for method, config in (("LoRA", LoRAConfig(rank=r)), ("Serial LoRA", SerialLoRAConfig(rank=r))):
    pairs = 4 * 4 * trained(name, config) / 1e6  # themselves, their gradients, Adam's two moments
    total[method] = frozen + pairs
    print(f"{method}: {frozen:.0f} MB of CLIP + {pairs:.0f} MB to train = {total[method]:.0f} MB")
saved = 1 - total["Serial LoRA"] / total["LoRA"]
print(f"a quarter of the parameters, and {saved:.0%} less memory")

# %% [markdown]
# LoRA of rank 8 has the size of Serial LoRA of rank 32. So the promise holds, and a LoRA of rank 8 is as small. What would
# speak for Serial LoRA is to learn more *at that size*. Lesson 04 trains both.
#
# And a quarter of the parameters is only 7% less of what training keeps in memory: most of it is the frozen CLIP.
# (Activations come on top of both; we did not measure them.)
#
# ## Quiz
#
# **1. LoRA gets pairs on the two feed-forward matrices as well, (d, 4d) and (4d, d). How many times Serial LoRA's pair
# is it now?**
#
# <details><summary>Answer</summary>
#
# Nine times. Each of the two new pairs has 5dr parameters, and 8dr + 2 · 5dr = 18dr.
#
# </details>
#
# **2. In your model k and v are a quarter as wide as q. You adapt q and v with LoRA. Which rank is no larger than Serial
# LoRA's 32?**
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
# - A pair holds rank · (inputs + outputs) parameters: 2dr when square.
# - At attention, the paper's place, LoRA on q, k, v and out holds 8dr in a block, Serial LoRA 2dr: exactly 4 on CLIP, SAM and SD3's picture tokens. In training CLIP that is 7% less memory,
#   activations not counted.
# - Against LoRA on q, k and v the ratio is 3, on q and v it is 2, and against LoRA at a quarter of the rank it is 1.
#   Always ask which LoRA is meant.
# - Count on the real model. With `torch.device("meta")` that costs nothing, and it finds what a formula forgets.
#
# The last point works for any model that you can construct: you know the size of an adapter before you download
# anything.
#
# Next: [03 · Build Serial LoRA](03_build_serial_lora.ipynb).
