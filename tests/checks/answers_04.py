"""Right and wrong answers to the exercises of lesson 04."""

import torch
import torch.nn.functional as F


def unit(x, dim=-1):
    return F.normalize(x, dim=dim)


def features(clip, pictures, prompts):
    return clip.encode_image(pictures, normalize=True), clip.encode_text(prompts, normalize=True)


def right_loss(clip, pictures, labels, prompts):
    image, text = clip.encode_image(pictures), clip.encode_text(prompts)
    scores = torch.exp(clip.logit_scale) * unit(image) @ unit(text).mT
    return -scores.log_softmax(-1)[torch.arange(len(labels)), labels].mean()


def loss(change=None, **options):
    """The loss with one thing changed: ``change(clip, image, text, labels)`` gives the scores."""

    def attempt(clip, pictures, labels, prompts):
        image, text = features(clip, pictures, prompts)
        scores = clip.logit_scale.exp() * image @ text.T
        if change is not None:
            scores = change(clip, image, text, labels)
        return F.cross_entropy(scores, labels, **options)

    return attempt


def loss_of_raw_features(clip, pictures, labels, prompts):
    scores = clip.logit_scale.exp() * clip.encode_image(pictures) @ clip.encode_text(prompts).T
    return F.cross_entropy(scores, labels)


def loss_of_pretraining(clip, pictures, labels, prompts):
    image, text = features(clip, pictures, prompts[labels])
    scores, pairs = clip.logit_scale.exp() * image @ text.T, torch.arange(len(labels))
    return (F.cross_entropy(scores, pairs) + F.cross_entropy(scores.T, pairs)) / 2


def loss_against_captions(clip, pictures, labels, prompts):
    image, text = features(clip, pictures, prompts[labels])
    return F.cross_entropy(clip.logit_scale.exp() * image @ text.T, torch.arange(len(labels)))


def loss_with_fixed_prompts(clip, pictures, labels, prompts):
    with torch.no_grad():
        text = clip.encode_text(prompts, normalize=True)
    scores = clip.logit_scale.exp() * clip.encode_image(pictures, normalize=True) @ text.T
    return F.cross_entropy(scores, labels)


def loss_with_fixed_pictures(clip, pictures, labels, prompts):
    image, text = features(clip, pictures, prompts)
    return F.cross_entropy(clip.logit_scale.exp() * image.detach() @ text.T, labels)


@torch.no_grad()
def loss_without_gradient(clip, pictures, labels, prompts):
    return right_loss(clip, pictures, labels, prompts)


def cut_by_walking(tokens):
    end = tokens.max()
    return tokens[:, : max(row.index(end) for row in tokens.tolist()) + 1]


def rank_by_trying(budget, towers, pairs=4, matrices=2, deep=True):
    blocks = [(width, depth if deep else 1) for width, depth in towers]
    sizes = (sum(pairs * matrices * w * d * rank for w, d in blocks) for rank in range(1, 10_000))
    return sum(1 for _ in iter(lambda: next(sizes) <= budget, False))


RIGHT = {
    "4.1": lambda i, t, s: torch.einsum("bd,cd->bc", unit(i), unit(t)) * torch.exp(s),
    "4.2": lambda i, c, y: (
        sum(int((c @ one).argmax()) == int(own) for one, own in zip(i, y, strict=True)) / len(y)
    ),
    "4.3": right_loss,
    "4.4": cut_by_walking,
    "4.5": rank_by_trying,
}

WRONG = {
    "4.1": {
        "turned round": (lambda i, t, s: s.exp() * unit(t) @ unit(i).T, "turned round"),
        "no scale": (lambda i, t, s: unit(i) @ unit(t).T, "the scale is forgotten"),
        "no exp": (lambda i, t, s: s * unit(i) @ unit(t).T, "take exp\\(\\) of it"),
        "divided": (lambda i, t, s: unit(i) @ unit(t).T / s.exp(), "divided by the scale"),
        "not normalised": (lambda i, t, s: s.exp() * i @ t.T, "neither side is normalised"),
        "only pictures": (lambda i, t, s: s.exp() * unit(i) @ t.T, "only the pictures"),
        "only classes": (lambda i, t, s: s.exp() * i @ unit(t).T, "only the classes"),
        "along the batch": (lambda i, t, s: s.exp() * unit(i, 0) @ unit(t, 0).T, "wrong dimension"),
        "probabilities": (lambda i, t, s: (s.exp() * unit(i) @ unit(t).T).softmax(-1), "softmax"),
        "no transpose": (lambda i, t, s: s.exp() * unit(i) @ unit(t), "two matrices do not fit"),
    },
    "4.2": {
        "a count": (lambda i, c, y: ((i @ c.T).argmax(1) == y).sum().item(), "not their share"),
        "percent": (
            lambda i, c, y: 100 * ((i @ c.T).argmax(1) == y).float().mean().item(),
            "in percent",
        ),
        "mistakes": (
            lambda i, c, y: ((i @ c.T).argmax(1) != y).float().mean().item(),
            "share of mistakes",
        ),
        "argmin": (
            lambda i, c, y: ((i @ c.T).argmin(1) == y).float().mean().item(),
            "finds the worst fit",
        ),
        "along the pictures": (
            lambda i, c, y: ((i @ c.T).argmax(0) == y).float().mean().item(),
            "runs along the pictures",
        ),
        "by class": (
            lambda i, c, y: (
                sum(((i @ c.T).argmax(1) == y)[y == k].float().mean().item() for k in y.unique())
                / len(y.unique())
            ),
            "mean of the classes' accuracies",
        ),
        "probability": (
            lambda i, c, y: (i @ c.T).softmax(1)[torch.arange(len(y)), y].mean().item(),
            "mean probability",
        ),
        "over classes": (
            lambda i, c, y: ((i @ c.T).argmax(1) == y).sum().item() / len(c),
            "not their share|number of classes",
        ),
        "a tensor": (lambda i, c, y: ((i @ c.T).argmax(1) == y).float().mean(), "still a tensor"),
        "one a picture": (lambda i, c, y: (i @ c.T).argmax(1) == y, "one number is wanted"),
    },
    "4.3": {
        "no scale": (loss(lambda m, i, t, y: i @ t.T), "the scale is forgotten"),
        "no exp": (loss(lambda m, i, t, y: m.logit_scale * i @ t.T), "take exp\\(\\) of it"),
        "not normalised": (loss_of_raw_features, "not normalised"),
        "softmax twice": (
            loss(lambda m, i, t, y: (m.logit_scale.exp() * i @ t.T).softmax(-1)),
            "softmax is taken",
        ),
        "summed": (loss(reduction="sum"), "are summed"),
        "one a picture": (loss(reduction="none"), "one loss a picture"),
        "turned round": (
            loss(lambda m, i, t, y: m.logit_scale.exp() * t @ i.T),
            "scores are turned round",
        ),
        "pretraining": (loss_of_pretraining, "pretraining's loss"),
        "captions": (loss_against_captions, "captions of the batch"),
        "prompts without gradient": (loss_with_fixed_prompts, "text tower gets no gradient"),
        "pictures without gradient": (loss_with_fixed_pictures, "image tower gets no gradient"),
        "no gradient": (loss_without_gradient, "no gradient reaches"),
        "a number": (lambda *a: right_loss(*a).item(), "leave .item\\(\\) away"),
    },
    "4.4": {
        "end lost": (lambda t: t[:, : t.argmax(-1).max()], "end-of-text token of the longest"),
        "shortest": (lambda t: t[:, : t.argmax(-1).min() + 1], "shortest"),
        "the first": (lambda t: t[:, : t[0].argmax() + 1], "first prompt's end|shortest"),
        "the last": (lambda t: t[:, : t[-1].argmax() + 1], "last prompt's end|shortest"),
        "non-zero": (lambda t: t[:, : (t != 0).sum(-1).max()], "zeros are taken for padding"),
        "nothing cut": (lambda t: t, "nothing is cut"),
        "one too many": (lambda t: t[:, : t.argmax(-1).max() + 2], "one column too many"),
        "rows": (lambda t: t[: t.argmax(-1).max() + 1], "nothing is cut|rows are cut"),
    },
    "4.5": {
        "without out": (lambda b, t: rank_by_trying(b, t, pairs=3), "out is left out"),
        "one pair": (lambda b, t: rank_by_trying(b, t, pairs=1), "that is Serial LoRA"),
        "one matrix": (lambda b, t: rank_by_trying(b, t, matrices=1), "one matrix of each pair"),
        "the first tower": (lambda b, t: rank_by_trying(b, t[:1]), "only the first tower"),
        "no depth": (lambda b, t: rank_by_trying(b, t, deep=False), "depth is left out"),
        "rounded up": (lambda b, t: -(-b // sum(8 * w * d for w, d in t)), "more than the budget"),
        "a share": (lambda b, t: b / sum(8 * w * d for w, d in t), "a rank is a whole number"),
        "a float": (lambda b, t: float(rank_by_trying(b, t)), "right in value"),
        "rounded in between": (
            lambda b, t: round(b / sum(8 * w * d for w, d in t)),
            "more than the budget",
        ),
    },
}
