# %% [markdown]
# # 02 · The count, proved
#
# The paper on Serial LoRA (Zhong et al., 2025) promises a quarter of LoRA's parameters. <!-- from the paper's title
# page: 2025 --> Below are the four matrices of one attention block in CLIP's image tower, 768 × 768, <!-- from
# ViT-B/16's configuration: 768 --> drawn to scale with pairs of rank 32. <!-- from the paper, Section III.B: 32 -->
# Each filled square holds as many parameters as a pair.
#
# Here the quarter is true. **Is it a quarter of every LoRA? Is it a quarter of the memory?** Put your guesses into the
# last two lines of the next cell. The last picture of the lesson has them beside what you count.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

import open_clip
import torch
from diffusers import SD3Transformer2DModel
from segment_anything import sam_model_registry
from sympy import symbols  # PyTorch needs it too
from torch import Tensor, nn

from serial_lora import LoRAConfig, SerialLoRAConfig, inject
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.lessons.l02_count.figures import plot_answer, plot_quarter
from serial_lora_course.plots.style import display_figure

lesson_card("02")
display_figure(plot_quarter(width=768, rank=32))
GUESS_TIMES = 4  # LoRA on q and v alone has how many times Serial LoRA's parameters?
GUESS_SHARE = 0.25  # of LoRA's memory in training, with pairs on all four: what Serial LoRA takes

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
# Call your function with the letters d and r, and what it returns holds for every width and rank.

# %%
parameters, (d, r) = yours("2.1"), symbols("d r")
serial = parameters([(d, d)], r)
print(f"{'Serial LoRA: one pair before q, k and v':42} {serial!s:>8}  times")
for name, shapes in {  # where LoRA's pairs are: (inputs, outputs) of each matrix
    "q, k, v and out: the paper's baseline": [(d, d)] * 4,
    "q, k and v: CLIP-LoRA's default": [(d, d)] * 3,
    "q and v: most of LoRA's own experiments": [(d, d)] * 2,
    "one fused qkv (one A, one tall B)": [(d, 3 * d)],
    "q, k, v and out, k and v a quarter as wide": [(d, d), (d, d / 4), (d, d / 4), (d, d)],
}.items():
    size = parameters(shapes, r)
    print(f"{name:42} {size!s:>8} {size / serial!s:>6}")

# %% [markdown]
# In the column of times d and r have cancelled, so it holds for every width and rank: that is the proof. **At equal
# ranks it is a quarter of LoRA on all four matrices of attention, if they are square.** Against LoRA on q and v Serial
# LoRA saves half. It reaches k too, but with one pair for all three.
#
# But why at equal ranks? At a lower rank, any LoRA is as small.
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
#
# ## Three real models, without their weights
#
# A formula may leave out what a real model has. So take the real classes at their real size, put the adapters in, and
# count. SD3's weights would need gigabytes, but on the **meta** device a tensor has a shape and no storage.
#
# Your function stands beside each count, with four square matrices in each block, or one. In CLIP and SAM q, k and v
# lie in one matrix; `inject` gives each its own pair. CLIP's text tower, which is narrower, gets pairs too. SD3 comes twice, since
# its text tokens have matrices of their own. In which row is your function wrong?

# %% tags=["nbval-check-output"]
MAKE = {
    "CLIP, both towers": lambda: open_clip.CLIP(**open_clip.get_model_config("ViT-B-16-quickgelu")),
    "SAM ViT-B": lambda: sam_model_registry["vit_b"](),
    "SD3 medium": lambda: SD3Transformer2DModel(
        num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    ),
}


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return MAKE[name]()


def trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


print(f"{'':20} rank {'LoRA':>14} {'your function':>14} {'Serial LoRA':>14} {'your function':>14}")
for name, rank, stream in (  # the paper's ranks
    ("CLIP, both towers", 32, "image"),
    ("SAM ViT-B", 64, "image"),
    ("SD3 medium", 64, "image"),
    ("SD3 medium", 64, "both"),  # text tokens too, which have as many matrices
):
    makes_q = ("in_proj_weight", "qkv.weight", "to_q.weight")  # in open_clip, SAM and SD3
    named = on_meta(name).named_parameters()
    widths = [weight.shape[1] for key, weight in named if key.endswith(makes_q)]
    shapes = [(d, d) for d in widths] * (2 if stream == "both" else 1)
    print(f"{name + (', text too' if stream == 'both' else ''):20} {rank:4}", end="")
    for kind, matrices in ((LoRAConfig, 4 * shapes), (SerialLoRAConfig, shapes)):
        model = inject(on_meta(name), kind(rank, stream=stream))
        print(f" {trained(model):14,} {parameters(matrices, rank):14,}", end="")
    print()

# %% [markdown]
# In one number: with SD3's text tokens LoRA has 196,608 parameters less than 24 blocks of eight matrices should give.
# That is 2 · 1536 · 64: one pair. So some block lacks a matrix that the others have.
#
# ### Exercise 2.3 · The matrix that is not there
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●○○ | 7 |
#
# Find it by the names of the attention weights. Return those that are missing: what some block has and another one
# lacks. The check runs your function on SD3's too, and says what it found.


# %% tags=["exercise"]
def absent(names: list[str]) -> list[str]:
    """The matrices that some blocks have and others lack.

    Args:
        names: such as "blocks.7.attn.to_q.weight": one stack, the block's number, the rest.

    Returns:
        The names that are not there, such as "blocks.3.attn.to_q.weight", sorted.
    """
    # BEGIN SOLUTION
    blocks: dict[str, set[str]] = {}  # number -> what the block has
    for name in names:
        stack, number, rest = name.split(".", 2)
        blocks.setdefault(number, set()).add(rest)
    known = set.union(*blocks.values())
    missing = [(number, rest) for number, has in blocks.items() for rest in known - has]
    return sorted(f"{stack}.{number}.{rest}" for number, rest in missing)
    # END SOLUTION


check("2.3", absent)

# %% [markdown]
# <details><summary>Hint 1: what a block has</summary>
#
# `name.split(".", 2)` gives the stack, the number and the rest. Collect the rests of each number in a set.
#
# </details>
# <details><summary>Hint 2: what it lacks</summary>
#
# The union of all sets is what a block can have. What one lacks is the union minus its own set.
#
# </details>
#
# Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)
#
# It is `to_add_out` of the last block, which would bring the text tokens out of attention. After its last block SD3
# needs the picture's tokens alone. The formula was right; our list of matrices was not.
#
# ## A quarter of the memory?
#
# Training holds weights; for each parameter that learns, a gradient and Adam's two moments; and *activations*, which
# the forward pass keeps for the backward pass. Autograd shows these to hooks, so an unfilled CLIP on the CPU
# (`to_empty`) is enough to count them. One picture and its caption go forward; a batch of 32 keeps 32 times as much.
# One of the five ways is LoRA at the rank that your 2.2 finds. Diamonds in the picture are your guesses.

# %%
BATCH = 32


def kept(model: nn.Module, *inputs: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, but for the model's own tensors."""
    sizes = {}  # of each storage once, though views may share it

    def note(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(*inputs)
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    return sum(size for place, size in sizes.items() if place not in own)


equal = yours("2.2")([(768, 768)] * 4, 768, 32)
ways = {
    "all of CLIP": None,
    "LoRA on q, k, v, out, rank 32": LoRAConfig(32),
    "LoRA on q and v, rank 32": LoRAConfig(32, parts=("q", "v")),
    f"LoRA on q, k, v, out, rank {equal}": LoRAConfig(equal),
    "Serial LoRA, rank 32": SerialLoRAConfig(32),
}
one = torch.rand(1, 3, 224, 224), torch.zeros(1, 77, dtype=torch.long)  # a picture, a caption
learn, memory = {}, {}
for name, config in ways.items():
    model = on_meta("CLIP, both towers")
    if config:
        inject(model, config)
    model.to_empty(device="cpu")
    learn[name] = trained(model)
    memory[name] = {  # in GB; a float32 has four bytes
        "weights": sum(p.nbytes for p in model.parameters()) / 1e9,
        "gradients and moments": 3 * 4 * learn[name] / 1e9,
        "activations": BATCH * kept(model, *one) / 1e9,
    }

_, lora, _, _, serial = memory.values()
print("Serial LoRA, beside LoRA of rank 32 on q, k, v, out:")
for part in serial:
    print(f"{part:>30} {1 - serial[part] / lora[part]:6.1%} less")
for batch in (BATCH, 1):
    a, b = (sum(m.values()) - m["activations"] * (1 - batch / BATCH) for m in (serial, lora))
    print(f"{f'all, batches of {batch}':>30} {1 - a / b:6.1%} less")
display_figure(plot_answer(learn, memory, GUESS_TIMES, GUESS_SHARE))

# %% [markdown]
# **Which LoRA?** The one on all four matrices, at equal rank. LoRA on q and v has twice as much as Serial LoRA, and LoRA
# of rank 8 no more: at that size Serial LoRA has to learn more to be worth it. Lesson 04 trains both.
#
# **The memory? No.** The quarter is in gradients and moments, which with any adapter hardly show in the
# picture. With batches of 32 most is activations, with one picture a step it is weights; a smaller pair hardly changes
# either. So 1.7% is saved in all, and 6.1% with one picture. The large saving is from all of CLIP to any adapter: nearly no gradients and moments, and a frozen matrix need
# not keep its input. (This is CLIP in float32, on a CPU; a step's peak is another sum, and temporary tensors come on top.)
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
# - An adapter saves gradients, moments and some activations. A smaller one saves little more memory, but disk.
# - Count on the real model: on `torch.device("meta")` that costs nothing, and it finds what a formula forgets.
#
# Next: [03 · Build Serial LoRA](03_build_serial_lora.ipynb).
