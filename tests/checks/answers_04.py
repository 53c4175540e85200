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


def scores_of(clip, pictures, prompts):
    image, text = features(clip, pictures, prompts)
    return clip.logit_scale.exp() * image @ text.T


def loss_of_raw_features(clip, pictures, labels, prompts):
    scores = clip.logit_scale.exp() * clip.encode_image(pictures) @ clip.encode_text(prompts).T
    return F.cross_entropy(scores, labels)


def loss_of_raw_prompts(clip, pictures, labels, prompts):
    image, text = clip.encode_image(pictures, normalize=True), clip.encode_text(prompts)
    return F.cross_entropy(clip.logit_scale.exp() * image @ text.T, labels)


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
        ("turned round", "turned round"): lambda i, t, s: s.exp() * unit(t) @ unit(i).T,
        ("no scale", "the scale is forgotten"): lambda i, t, s: unit(i) @ unit(t).T,
        ("no exp", "take exp\\(\\) of it"): lambda i, t, s: s * unit(i) @ unit(t).T,
        ("divided", "divided by the scale"): lambda i, t, s: unit(i) @ unit(t).T / s.exp(),
        ("not normalised", "neither side is normalised"): lambda i, t, s: s.exp() * i @ t.T,
        ("only pictures", "only the pictures"): lambda i, t, s: s.exp() * unit(i) @ t.T,
        ("only classes", "only the classes"): lambda i, t, s: s.exp() * i @ unit(t).T,
        ("along the batch", "wrong dimension"): lambda i, t, s: s.exp() * unit(i, 0) @ unit(t, 0).T,
        ("probabilities", "softmax"): lambda i, t, s: (s.exp() * unit(i) @ unit(t).T).softmax(-1),
        ("one length for all", "all rows together"): lambda i, t, s: (
            s.exp() * (i / i.norm()) @ (t / t.norm()).T
        ),
        ("100", "CLIP's usual scale"): lambda i, t, s: 100 * unit(i) @ unit(t).T,
        ("detached", "no gradient reaches"): lambda i, t, s: (
            s.exp() * unit(i) @ unit(t).T
        ).detach(),
        ("no transpose", "two matrices do not fit"): lambda i, t, s: s.exp() * unit(i) @ unit(t),
    },
    "4.2": {
        ("a count", "not their share"): lambda i, c, y: ((i @ c.T).argmax(1) == y).sum().item(),
        ("percent", "in percent"): lambda i, c, y: (
            100 * ((i @ c.T).argmax(1) == y).float().mean().item()
        ),
        ("mistakes", "share of mistakes"): lambda i, c, y: (
            ((i @ c.T).argmax(1) != y).float().mean().item()
        ),
        ("argmin", "finds the worst fit"): lambda i, c, y: (
            ((i @ c.T).argmin(1) == y).float().mean().item()
        ),
        ("along the pictures", "runs along the pictures"): lambda i, c, y: (
            ((i @ c.T).argmax(0) == y).float().mean().item()
        ),
        ("by class", "mean of the classes' accuracies"): (
            lambda i, c, y: (
                sum(((i @ c.T).argmax(1) == y)[y == k].float().mean().item() for k in y.unique())
                / len(y.unique())
            )
        ),
        ("probability", "mean probability"): lambda i, c, y: (
            (i @ c.T).softmax(1)[torch.arange(len(y)), y].mean().item()
        ),
        ("over classes", "not their share|number of classes"): lambda i, c, y: (
            ((i @ c.T).argmax(1) == y).sum().item() / len(c)
        ),
        ("a tensor", "still a tensor"): lambda i, c, y: ((i @ c.T).argmax(1) == y).float().mean(),
        ("all pairs", "so all pairs are compared"): lambda i, c, y: (
            ((i @ c.T).topk(1).indices == y).float().mean().item()
        ),
        ("one a picture", "one number is wanted"): lambda i, c, y: (i @ c.T).argmax(1) == y,
    },
    "4.3": {
        ("no scale", "the scale is forgotten"): loss(lambda m, i, t, y: i @ t.T),
        ("no exp", "take exp\\(\\) of it"): loss(lambda m, i, t, y: m.logit_scale * i @ t.T),
        ("not normalised", "the features are not normalised"): loss_of_raw_features,
        ("one side", "prompts' features are not"): loss_of_raw_prompts,
        ("softmax twice", "softmax is taken"): loss(
            lambda m, i, t, y: (m.logit_scale.exp() * i @ t.T).softmax(-1)
        ),
        ("summed", "are summed"): loss(reduction="sum"),
        ("no logarithm", "takes logarithms"): lambda m, p, y, t: F.nll_loss(
            scores_of(m, p, t).softmax(-1), y
        ),
        ("over classes too", "a picture has one loss"): lambda m, p, y, t: (
            -(F.one_hot(y, len(t)) * scores_of(m, p, t).log_softmax(-1)).mean()
        ),
        ("picture i, class i", "picture i is taken for class i"): lambda m, p, y, t: (
            F.cross_entropy(scores_of(m, p, t), torch.arange(len(y)))
        ),
        ("in eval mode", "in its mode"): lambda m, *rest: right_loss(m.eval(), *rest),
        ("one a picture", "one loss a picture"): loss(reduction="none"),
        ("turned round", "scores are turned round"): loss(
            lambda m, i, t, y: m.logit_scale.exp() * t @ i.T
        ),
        ("pretraining", "pretraining's loss"): loss_of_pretraining,
        ("captions", "captions of the batch"): loss_against_captions,
        ("prompts without gradient", "text tower gets no gradient"): loss_with_fixed_prompts,
        ("pictures without gradient", "image tower gets no gradient"): loss_with_fixed_pictures,
        ("no gradient", "no gradient reaches"): loss_without_gradient,
        ("a number", "leave .item\\(\\) away"): lambda *a: right_loss(*a).item(),
    },
    "4.4": {
        ("end lost", "end-of-text token of the longest"): lambda t: t[:, : t.argmax(-1).max()],
        ("shortest", "shortest"): lambda t: t[:, : t.argmax(-1).min() + 1],
        ("the first", "first prompt's end|shortest"): lambda t: t[:, : t[0].argmax() + 1],
        ("the last", "last prompt's end|shortest"): lambda t: t[:, : t[-1].argmax() + 1],
        ("non-zero", "zeros are taken for padding"): lambda t: t[:, : (t != 0).sum(-1).max()],
        ("columns of zeros", "columns of zeros are dropped"): lambda t: t[:, (t != 0).any(0)],
        ("CLIP's own id", "another vocabulary"): lambda t: t[
            :, : (t == 49407).int().argmax(-1).max() + 1
        ],
        ("floats", "of float32"): lambda t: cut_by_walking(t).float(),
        ("nothing cut", "nothing is cut"): lambda t: t,
        ("one too many", "one column too many"): lambda t: t[:, : t.argmax(-1).max() + 2],
        ("rows", "nothing is cut|rows are cut"): lambda t: t[: t.argmax(-1).max() + 1],
    },
    "4.5": {
        ("without out", "out is left out"): lambda b, t: rank_by_trying(b, t, pairs=3),
        ("one pair", "that is Serial LoRA"): lambda b, t: rank_by_trying(b, t, pairs=1),
        ("one matrix", "one matrix of each pair"): lambda b, t: rank_by_trying(b, t, matrices=1),
        ("the first tower", "only the first tower"): lambda b, t: rank_by_trying(b, t[:1]),
        ("the last tower", "only the last tower"): lambda b, t: rank_by_trying(b, t[-1:]),
        ("a budget each", "they share it"): lambda b, t: min(b // (8 * w * d) for w, d in t),
        ("below the budget", "takes the whole budget"): lambda b, t: rank_by_trying(b - 1, t),
        ("no depth", "depth is left out"): lambda b, t: rank_by_trying(b, t, deep=False),
        ("rounded up", "more than the budget"): lambda b, t: -(-b // sum(8 * w * d for w, d in t)),
        ("a share", "a rank is a whole number"): lambda b, t: b / sum(8 * w * d for w, d in t),
        ("at least 1", "only rank 0 is within"): lambda b, t: max(1, rank_by_trying(b, t)),
        ("a float", "right in value"): lambda b, t: float(rank_by_trying(b, t)),
        ("rounded in between", "more than the budget"): lambda b, t: round(
            b / sum(8 * w * d for w, d in t)
        ),
    },
}
