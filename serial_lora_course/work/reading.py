"""Tables and sentences of lesson 12: what its runs show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from torch import Tensor, nn

from serial_lora.attention import find_attention_sites
from serial_lora_course.labs.frames import half_width
from serial_lora_course.labs.own import ClassifyConfig, PictureClassifier
from serial_lora_course.measures.metrics import accuracy
from serial_lora_course.work.folder import Reached


def read_gain(results: pd.DataFrame, test_pictures: int) -> str:
    """What the adapter gains over the linear probe, split by split.

    Args:
        results: accuracies between 0 and 1; a row a split, the columns
            ``linear probe`` and ``Serial LoRA``.
    """
    probe = results["linear probe"]
    gain, spread = 100 * (results["Serial LoRA"] - probe), 100 * probe.std()
    ahead = int((gain > 50 / test_pictures).sum())  # by half a picture: equal counts may be rounded
    half = half_width(gain.sem(), len(gain) - 1)
    return (
        f"Serial LoRA with its head is above the linear probe on {ahead} of {len(gain)} splits, by "
        f"{gain.mean():+.1f} points on average ({gain.min():+.1f} to {gain.max():+.1f}). One test "
        f"picture is {100 / test_pictures:.1f} points, and the probe alone has a standard deviation "
        f"of {spread:.1f} between splits. The 95% confidence interval of the mean gain, by Student's t, goes from "
        f"{gain.mean() - half:+.1f} to {gain.mean() + half:+.1f} points."
    )


def read_page(
    losses: Sequence[float], right: float, test_pictures: int, files: Mapping[str, int]
) -> str:
    """What one training reached, and how large its files are.

    Args:
        right: the share of the test pictures, between 0 and 1.
        files: ``adapter`` and ``head``, in bytes.
    """
    return (
        f"{len(losses)} steps bring the loss from {losses[0]:.2f} to {losses[-1]:.2f}. The classifier is right on "
        f"{right:.1%} of {test_pictures} test pictures; the adapter's file has {files['adapter']:,} bytes, the "
        f"head's {files['head']:,}."
    )


def read_proofs(table: pd.DataFrame) -> str:
    """The largest of the differences that :func:`proof_row` tells; a row a model."""
    worst = table[["loaded from its files", "merged"]].astype(float).max().max()
    return (
        f"For all {len(table)} models, the scores of the adapter that was loaded and of the merged model differ "
        f"from the trained one's by at most {worst:.0e} of the largest score: rounding."
    )


def read_sites(adapted: Tensor, others: Mapping[str, Tensor]) -> str:
    """How far the outputs of other models are from the adapted one's."""
    size = adapted.abs().max()
    said = ", ".join(
        f"{float((each - adapted).abs().max() / size):.0e} ({what})"
        for what, each in others.items()
    )
    return f"Relative to the adapted model's largest output, these differ from it by {said}."


def read_reached(reached: Reached) -> str:
    """What `fit_folder` reached, beside what costs less."""
    return (
        f"Of {reached.steps} steps the state after {reached.best_step} was kept. It gets "
        f"{reached.test:.1%} of {reached.pictures['test']} test pictures right, the linear probe "
        f"{reached.probe:.1%}, and always naming the largest class {reached.largest_class:.1%}. It was "
        f"trained on {reached.pictures['train']} pictures only, since {reached.pictures['validation']} were kept "
        "apart for validation."
    )


def read_defaults(config: ClassifyConfig) -> str:
    """Where to start, by the configuration's own defaults."""
    return (
        f"Where to start: rank {config.rank}, a learning rate of {config.lr:g} for A and B alike, "
        f"cosine, {config.epochs} rounds. If the validation loss jumps about, halve the rate. If it "
        "still falls at the end, double the rounds. Change the rank last."
    )


def models_table(model_lines: Mapping[str, Callable[[], nn.Module]]) -> pd.DataFrame:
    """What `PictureClassifier` and the package find out about each model by themselves."""
    rows = []
    for name, model_line in model_lines.items():
        each = PictureClassifier(model_line(), ["one", "two"])
        sites = find_attention_sites(each.model, towers=["image"])
        size, mean = each.preprocessing.size, each.preprocessing.mean[0]
        row = {"model": name, "pictures": f"{size} x {size}", "mean of red": f"{mean:.3f}"}
        row |= {"vector": each.head.in_features, "blocks": len(sites)}
        rows.append(row | {"where q reads them": sites[0].projections["q"].module})
    return pd.DataFrame(rows)


def proof_row(
    adapted: Tensor, from_files: Tensor, merged: Tensor, labels: Sequence[int]
) -> dict[str, str]:
    """How far scores (N, C) that should be equal differ, relative to the largest; and accuracy."""
    size, truth = adapted.abs().max(), adapted.new_tensor(labels).long()
    return {
        "loaded from its files": f"{(from_files - adapted).abs().max() / size:.0e}",
        "merged": f"{(merged - adapted).abs().max() / size:.0e}",
        "accuracy": f"{accuracy(adapted, truth):.1%}",
    }
