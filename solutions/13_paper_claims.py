# %% [markdown]
# # 13 · Appendix: the paper's claims, one by one
#
# Optional: nothing else in the course needs it. It is for whoever wants to see how a paper is audited.
#
# **What you will be able to do**
#
# - say how many cells in bold a method would have by luck;
# - run a line of a record again, and know what to expect;
# - read the ledger: each claim of the paper, what its own tables say, and what is measured here;
# - name the places where the paper contradicts itself.

# %%
try:
    import serial_lora_course  # before PyTorch, whose waiting threads it lets sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import os

from IPython.display import Markdown, display

from serial_lora_course.checks import lesson_card
from serial_lora_course.claims.evidence import load_evidence
from serial_lora_course.plots.style import display_figure
from serial_lora_course.plots.tables import display_table

evidence = load_evidence()  # the records that the course ships, and the paper's tables
lesson_card("13")

# %% [markdown]
# One line decides which CLIP the one run of this lesson adapts, in the section that runs a record again:
# the tiny one, or OpenAI's ViT-B/16, as in lesson 04. Everything else uses records and the paper's tables.

# %%
SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper"
LENGTH = os.environ.get("SERIAL_LORA_LENGTH", "class")  # or "full"; "dry" takes two steps a run

# %% [markdown]
# ## Twelve cells and the best in bold
#
# Tables II to IV of the paper print one number a cell and set the best in bold. It is tempting to count: who is
# best in most cells? Suppose that four methods were *equally good*, and every cell were chance. In how many of
# twelve cells would one method be best? The cell makes many such tables and counts in three ways: for a method
# that was named before; for whichever of the four is best most often; and the same when half of the chance is
# shared by the cells of one data set, as it is when they share pictures, prompts and settings. Guess first: how
# many cells has the luckiest of four?

# %%
import numpy as np

from serial_lora_course.claims.luck import best_cells, printed_wins, read_wins

tables, datasets, amounts, methods = 20_000, 4, 3, 4
chance = np.random.default_rng(0)
own = chance.normal(size=(tables, datasets, amounts, methods))
shared = chance.normal(size=(tables, datasets, 1, methods))  # alike for all amounts of data
luck = {
    "named before": best_cells(own)[:, 0],
    "the luckiest of four": best_cells(own).max(axis=1),
    "and half the luck shared": best_cells(own + shared).max(axis=1),
}

# %%
from serial_lora_course.figures.claims import plot_wins

wins = printed_wins(evidence.paper, "accuracy")  # Table III, by method
display_figure(plot_wins(luck, datasets * amounts, dict.fromkeys(luck, int(wins.max()))))
display(Markdown("**What this shows.** " + read_wins(wins, luck)))

# %% [markdown]
# Among equals one wins clearly, and the more chance the cells share, the more clearly. A count of bold cells
# has to be compared with the luckiest of four. How much chance the cells of Table III share cannot be seen from
# one number a cell. And chance is not the only other explanation: one learning rate for all methods suits one
# of them best (lesson 05), in every cell alike.
#
# **Change this and run again**: five methods instead of four; or `own + 2 * shared`.
#
# ## Run a record again
#
# The verdicts below come from files. Before you believe a file, run a line of it. The cell repeats one of
# lesson 04's runs with the lab's settings, which are those that the record carries, and compares. At the
# paper's scale there is no record, and the run is compared with the number that the paper prints.

# %%
from serial_lora_course.claims.paper import paper_table
from serial_lora_course.claims.sentences import read_again
from serial_lora_course.frontend import is_static
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.lesson import open_lesson
from serial_lora_course.labs.methods import get_method

lesson = open_lesson("clip", SCALE, LENGTH)
print(lesson)
again = run_one(lesson.lab(), get_method("serial_lora"), 1, seed=1, progress=not is_static())
records, printed = evidence.runs("clip"), paper_table("Table III")
said = read_again(again, len(lesson.data.test), records, printed)
display(Markdown(f"**What this shows.** {said}"))
lesson.close()

# %% [markdown]
# On the kind of machine that made the records the numbers repeat. On another, sums are added up in another
# order, and pictures near the decision boundary may get another class. Compare that with what another seed
# changes. Every run behind the ledger can be repeated in this way.
#
# **Change this and run again**: `seed=2`, or `get_method("lora")`.
#
# ## The ledger
#
# Now all claims of the paper, one a row. Each has its place and a few of its words; what the paper's *own*
# tables say about it; and what *our* records say, at tiny scale. All verdicts are computed from these
# numbers, by the following rules.

# %%
from serial_lora_course.claims.verdicts import rules

display(Markdown("\n".join(f"- {rule}" for rule in rules())))

# %% [markdown]
# How often each verdict was given, and which claims hold where:

# %%
from serial_lora_course.claims.ledger import counts_frame, ledger, ledger_frame, read_ledger

rows = ledger(evidence)
display_table(counts_frame(rows))
display(Markdown("**What this shows.**\n\n" + read_ledger(rows)))

# %% [markdown]
# Other records could change the right column, the left one never. Much of what a paper claims is more
# detailed than its tables can support, and that is common, not special to this one. The arithmetic of
# the saving is the most certain part. How good the method is depends on the task.
#
# Then the claims themselves: first the sizes, then the most important question. How good is it?

# %%
for theme in ("Size and memory", "Comparable or better"):
    display(Markdown(f"#### {theme}"))
    display_table(ledger_frame(rows, theme))

# %% [markdown]
# **What this shows.** The two verdicts of a row answer different questions: whether the paper's numbers support
# its sentence, and whether the method did it again elsewhere. They may differ in both directions without anyone
# being wrong. Mind the words: "comparable" and "superior" are separate claims, and a word such as "consistently"
# asks far more than "on average".

# %%
for theme in ("Few pictures", "LoRA+"):
    display(Markdown(f"#### {theme}"))
    display_table(ledger_frame(rows, theme))

# %% [markdown]
# **What this shows.** Claims about few pictures rest on the smallest training sets, where the choice of
# pictures matters most: look at the errors. And a claim that Serial LoRA+ beats LoRA+ needs LoRA+ to be a
# strong baseline; the last row of the second table says whether it is (lesson 05 shows what the rate of B has
# to do with it).

# %%
for theme in ("Rank and budget", "Inside the adapter", "Data and metric"):
    display(Markdown(f"#### {theme}"))
    display_table(ledger_frame(rows, theme))

# %% [markdown]
# **What this shows.** The first row says whether the method is new. That is a claim like any other. It is
# tested by writing the older method from its own paper, RepAdapter (Luo et al. 2023, arXiv 2302.08106), and
# comparing. A fairer comparison, with RepAdapter and other methods in it, is the study of lesson 11.
#
# Count what stands behind a verdict before you believe it. The brackets say how many data sets and seeds there
# are. The interval after ± is over data sets, with Student's t, as in lesson 11; the one for *these sets* is
# often narrower, and says less. The study's rows are corrected for their number, and the others are not: where
# a claim is about *every* rank or matrix, a single false positive is enough to refute it.
#
# **Change this and run again**: a stricter reader asks for 99% instead of 95%. Run the two lines below in a
# cell of your own, and the cells of this section once more. Which verdicts change? (Set it back to 0.95
# afterwards.)
#
#     from serial_lora_course.study import statistics
#     statistics.CONFIDENCE = 0.99
#
# ## What does not fit together
#
# The paper also contradicts itself in places. None of this touches the method, but whoever quotes a number or
# rebuilds an experiment should know. Numbers in the findings are computed from the paper's tables.

# %%
from serial_lora_course.claims.audit import inconsistency_frame

found, place = inconsistency_frame(), ""  # change this and run again: "Table IV"
display_table(found[found["Where"].str.contains(place)])

# %% [markdown]
# **What this shows.** Units, counts and references are the fastest to check, and rarely checked. A reading that
# finds such things is not hostile: it makes a result usable by others.
#
# The ledger is also a page of this repository, [`CLAIMS.md`](../CLAIMS.md), which
# `python -m tools.documents` writes.

# %% [markdown]
# ## Quiz
#
# **1. A table has five methods and twenty cells, and the new method is best in eight. Is it the best method?**
#
# <details><summary>Answer</summary>
#
# Nobody can say from the count. Among five equal methods the luckiest is best in clearly more than four
# cells, and in more still where cells share data. Simulate it, or better: ask for the spread in each cell.
#
# </details>
#
# **2. A claim holds in the paper's tables, and our records say "does not hold". Who is wrong?**
#
# <details><summary>Answer</summary>
#
# Perhaps nobody. The paper's models, data and settings differ from ours. The verdict here says that the
# claim does not hold at this scale, with these settings, by this rule.
#
# </details>
#
# **3. Why does the ledger give no single verdict on the paper?**
#
# <details><summary>Answer</summary>
#
# Because the claims are different questions, with different evidence. The saving of parameters is arithmetic
# and certain. "Comparable" depends on a margin. "Superior" needs more than the records have. One word for all
# would hide the difference.
#
# </details>

# %% [markdown]
# ## Key points
#
# - Best in bold: among four equals one has many cells. Cells of one data set are not independent.
# - A claim becomes testable when its words become a rule. Verdicts are computed, never written.
# - Two verdicts a claim: by the paper's own tables, and by what is measured here.
# - Run one line of a record again before you believe the file.
#
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer": abstract, section I and section IV for the main claims;
# sections III-A to III-C for those about one task; section III-D and Fig. 5 for the rank; section II-D and
# Fig. 3 for the spectra.
