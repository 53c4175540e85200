"""Right and wrong answers to the exercises of lesson 10."""

import torch


def stacked(pairs, weights, order=1, a_power=0.5, b_power=0.5):
    """The sum with the weight split between the factors, which only positive weights allow."""
    A = torch.cat([w.__abs__() ** a_power * A for w, (A, _) in zip(weights, pairs, strict=True)])
    B = torch.cat(
        [
            (w.__abs__() ** b_power) * (1 if w > 0 else -1) * B
            for w, (_, B) in zip(weights, pairs, strict=True)
        ][::order],
        dim=1,
    )
    return A, B


def weighted(weigh, order=1):
    """A stack whose B's are multiplied by ``weigh(weight, weights)``."""

    def attempt(pairs, weights):
        A = torch.cat([A for A, _ in pairs])
        scaled = [weigh(w, weights) * B for w, (_, B) in zip(weights, pairs, strict=True)]
        return A, torch.cat(scaled[::order], dim=1)

    return attempt


def averaged_factors(pairs, weights):
    rank = min(len(A) for A, _ in pairs)
    A = sum(w * A[:rank] for w, (A, _) in zip(weights, pairs, strict=True))
    return A, sum(w * B[:, :rank] for w, (_, B) in zip(weights, pairs, strict=True))


def on_both(pairs, weights):
    A = torch.cat([w * A for w, (A, _) in zip(weights, pairs, strict=True)])
    return A, torch.cat([w * B for w, (_, B) in zip(weights, pairs, strict=True)], dim=1)


def chained(cross=lambda A1, B1, A2, B2: A2 + A2 @ B1 @ A1, swap=False):
    """A chain whose second A is computed by ``cross``."""

    def attempt(first, second):
        (A1, B1), (A2, B2) = (second, first) if swap else (first, second)
        return torch.cat([A1, cross(A1, B1, A2, B2)]), torch.cat([B1, B2], dim=1)

    return attempt


def chain_without_first(first, second):
    (A1, B1), (A2, B2) = first, second
    A = torch.cat([0 * A1, A2 + A2 @ B1 @ A1])
    return A, torch.cat([B1, B2], dim=1)


def each(pick=lambda w: w, keep=1, pick_B=None):
    """Every sample by itself; ``pick(which)`` says with which adapter."""

    def attempt(x, all_A, all_B, which):
        of_A = pick(which).tolist()
        of_B = (pick_B or pick)(which).tolist()
        rows = [
            keep * one + one @ all_A[a].T @ all_B[b].T
            for one, a, b in zip(x, of_A, of_B, strict=True)
        ]
        return torch.stack(rows)

    return attempt


def all_at_once(x, all_A, all_B, which):
    return x + sum(x @ A.T @ B.T for A, B in zip(all_A, all_B, strict=True))


def mean_of_all(x, all_A, all_B, which):
    return x + sum(x @ A.T @ B.T for A, B in zip(all_A, all_B, strict=True)) / len(all_A)


def mean_of_factors(x, all_A, all_B, which):
    return x + x @ all_A.mean(0).T @ all_B.mean(0).T


RIGHT = {
    "10.1": stacked,
    "10.2": lambda first, second: (
        torch.cat([first[0], second[0]]),
        torch.cat([first[1] + second[1] @ (second[0] @ first[1]), second[1]], dim=1),
    ),
    "10.3": each(),
}
WRONG = {
    "10.1": {
        ("averaged factors", "rank is the sum"): averaged_factors,
        ("no weights", "weights are forgotten"): weighted(lambda w, all: 1),
        ("weights on both", "squared"): on_both,
        ("shares", "divided by their sum"): weighted(lambda w, all: w / sum(all)),
        ("a mean", "no mean"): weighted(lambda w, all: w / len(all)),
        ("no sign", "sign of a negative weight"): weighted(lambda w, all: abs(w)),
        ("the first weight", "gets the first weight"): weighted(lambda w, all: all[0]),
        ("B's turned round", "same order|shapes"): weighted(lambda w, all: w, order=-1),
        ("the first alone", "first pair alone"): weighted(lambda w, all: w * (w == all[0])),
        ("the last alone", "last pair alone"): weighted(lambda w, all: w * (w == all[-1])),
        ("exchanged", "exchanged"): lambda p, w: stacked(p, w)[::-1],
        ("the product", "two tensors"): lambda p, w: stacked(p, w)[1] @ stacked(p, w)[0],
        ("rows and rows", "columns"): lambda p, w: (
            torch.cat([A for A, _ in p]),
            torch.cat([B.T for _, B in p]),
        ),
    },
    "10.2": {
        ("the sum", "that is the sum"): chained(lambda A1, B1, A2, B2: A2),
        ("turned round", "order is turned round"): chained(swap=True),
        ("only the cross term", "second pair's own is not"): chained(
            lambda A1, B1, A2, B2: A2 @ B1 @ A1
        ),
        ("without the first", "first pair's own is not"): chain_without_first,
        ("subtracted", "subtracted"): chained(lambda A1, B1, A2, B2: A2 - A2 @ B1 @ A1),
        ("twice", "twice"): chained(lambda A1, B1, A2, B2: A2 + 2 * A2 @ B1 @ A1),
        ("exchanged", "exchanged"): lambda f, s: chained()(f, s)[::-1],
        ("the product", "two tensors"): lambda f, s: chained()(f, s)[1] @ chained()(f, s)[0],
    },
    "10.3": {
        ("the first adapter", "the first adapter"): each(lambda w: 0 * w),
        ("the first sample's", "adapter of the first sample"): each(lambda w: w[:1].expand_as(w)),
        ("x lost", "x itself is lost"): each(keep=0),
        ("x twice", "x is added twice"): each(keep=2),
        ("reshaped", "reshape is no transpose"): lambda x, A, B, w: (
            x + x @ A[w].reshape(len(w), A.shape[2], A.shape[1]) @ B[w].mT
        ),
        ("one B", "B of the first sample"): each(pick_B=lambda w: w[:1].expand_as(w)),
        ("all of them", "sum of all"): all_at_once,
        ("their mean", "mean of all"): mean_of_all,
        ("averaged factors", "factors of all"): mean_of_factors,
        ("A alone gathered", "B is not"): each(pick_B=lambda w: 0 * w),
        ("exchanged", "x meets A first"): lambda x, A, B, w: x + x @ B[w] @ A[w],
        ("in the wrong order", "wrong order"): each(lambda w: w.flip(0)),
        ("flattened", "\\(B, N, d\\)"): lambda *a: each()(*a).flatten(0, 1),
        ("detached", "no gradient reaches"): lambda *a: each()(*a).detach(),
        ("B detached", "all_B gets no gradient"): lambda x, A, B, w: each()(x, A, B.detach(), w),
        ("branch detached", "a part of the way from x"): lambda x, *rest: (
            x + each(keep=0)(x.detach(), *rest)
        ),
    },
}
