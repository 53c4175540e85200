"""Right and wrong answers to the exercises of lesson 01."""

import torch

PARTS = ("q", "k", "v")


# --------------------------------------------------------------------- 1.1 the rank for a miss


def rank_by_approximations(matrix, allowed):
    """By making every approximation and measuring it."""
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    near = [(U[:, :r] * S[:r]) @ Vh[:r] for r in range(len(S) + 1)]
    good = [bool((matrix - m).norm() <= allowed * matrix.norm() + 1e-12) for m in near]
    return good.index(True)


def rank(miss):
    """The first rank whose ``miss(S, r)`` is small enough."""

    def attempt(matrix, allowed):
        S = torch.linalg.svdvals(matrix)
        return next((r for r in range(len(S)) if miss(S, r) <= allowed), len(S))

    return attempt


def right_miss(S, r):
    return S[r:].norm() / S.norm()


def rank_between(least, most):
    """The right rank, kept between two ends; ``most`` is below the full rank by that much."""

    def attempt(matrix, allowed):
        found = rank(right_miss)(matrix, allowed)
        return min(max(found, least), min(matrix.shape) - most)

    return attempt


def loop_without_an_end(ranks=len, good=lambda miss, allowed: miss <= allowed):
    """A loop that returns nothing where it finds nothing."""

    def attempt(matrix, allowed):
        S = torch.linalg.svdvals(matrix)
        for r in range(ranks(S)):
            if good(right_miss(S, r), allowed):
                return r

    return attempt


def rank_by_what_is_kept(matrix, allowed):
    S = torch.linalg.svdvals(matrix)
    return next((r for r in range(len(S)) if S[:r].norm() / S.norm() >= allowed), len(S))


# -------------------------------------------------------------------------- 1.2 equal LoRA pairs


def pairs(of_B, of_A=lambda weight, A: A):
    """Pairs with one thing changed: ``of_B(W, B)`` and ``of_A(W, A)``."""

    def attempt(weights, A, B):
        return {part: (of_A(weight, A), of_B(weight, B)) for part, weight in weights.items()}

    return attempt


def pairs_in_another_basis(weights, A, B):
    """The same products, by way of another basis of the rank."""
    turn = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    turn = torch.block_diag(turn, torch.eye(len(A) - 2))
    return {p: (turn @ A, torch.linalg.solve(turn.T, (w @ B).T).T) for p, w in weights.items()}


def pairs_in_place(weights, A, B):
    answer = pairs(torch.matmul)(weights, A, B)
    for part, (A_p, B_p) in answer.items():
        weights[part] += B_p @ A_p
    return answer


# -------------------------------------------------------------------------- 1.3 the nearest pair


def best_layers(matrix, r):
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U[:, :r] * S[:r], Vh[:r]


def stacked(each):
    return torch.cat([each[part] for part in PARTS])


def nearest_by_normal_equations(weights, changes, r):
    """With a Cholesky factor of W^T W in the place of R."""
    W, wanted = stacked(weights), stacked(changes)
    factor = torch.linalg.cholesky(W.T @ W).T  # R, up to signs
    left, A = best_layers(torch.linalg.solve(factor.T, W.T @ wanted), r)
    return A, torch.linalg.solve(factor, left)


def nearest(change):
    """``change(W, wanted, r, weights, changes)`` gives the two factors of C."""

    def attempt(weights, changes, r):
        B, A = change(stacked(weights), stacked(changes), r, weights, changes)
        return A, B

    return attempt


def without_values(W, wanted, r, *_):
    Q, R = torch.linalg.qr(W)
    U, _, Vh = torch.linalg.svd(Q.T @ wanted)
    return torch.linalg.solve(R, U[:, :r]), Vh[:r]


def values_twice(W, wanted, r, *_):
    Q, R = torch.linalg.qr(W)
    left, A = best_layers(Q.T @ wanted, r)
    return torch.linalg.solve(R, left), A * left.norm(dim=0)[:, None]


def columns_of_Vh(W, wanted, r, *_):
    Q, R = torch.linalg.qr(W)
    U, S, Vh = torch.linalg.svd(Q.T @ wanted)
    return torch.linalg.solve(R, U[:, :r] * S[:r]), Vh[:, :r].T


def without_R(W, wanted, r, *_):
    return best_layers(torch.linalg.qr(W)[0].T @ wanted, r)


def cut_afterwards(W, wanted, r, *_):
    return best_layers(torch.linalg.lstsq(W, wanted).solution, r)


def cut_before(W, wanted, r, *_):
    left, A = best_layers(wanted, r)
    return torch.linalg.lstsq(W, left).solution, A


def only_q(W, wanted, r, weights, changes):
    left, A = best_layers(changes["q"], r)
    return torch.linalg.solve(weights["q"], left), A


def of_means(W, wanted, r, weights, changes):
    left, A = best_layers(sum(changes.values()) / 3, r)
    return torch.linalg.solve(sum(weights.values()) / 3, left), A


# ----------------------------------------------------------------------------- 1.4 the gradient


def gradient_by_autograd(weights, gradients, lora_A, scale):
    """Differentiates the sum of gradient times change."""
    A = lora_A
    B = torch.zeros(A.shape[1], len(A), requires_grad=True)
    change = sum((gradients[p] * (scale * weights[p] @ B @ A)).sum() for p in PARTS)
    return torch.autograd.grad(change, B)[0]


def gradient(of_part=lambda W, g: W.T @ g, parts=PARTS, end=lambda total, A, s: s * total @ A.T):
    """The gradient with one thing changed."""

    def attempt(weights, gradients, lora_A, scale):
        total = sum(of_part(weights[part], gradients[part]) for part in parts)
        return end(total, lora_A, scale)

    return attempt


def gradient_in_place(weights, gradients, lora_A, scale):
    for part in PARTS:
        gradients[part].mul_(scale)
    return gradient(end=lambda total, A, s: total @ A.T)(weights, gradients, lora_A, scale)


def gradient_of_sums(weights, gradients, lora_A, scale):
    return scale * sum(weights.values()).T @ sum(gradients.values()) @ lora_A.T


RIGHT = {
    "1.1": rank_by_approximations,
    "1.2": pairs_in_another_basis,
    "1.3": nearest_by_normal_equations,
    "1.4": gradient_by_autograd,
}

WRONG = {
    "1.1": {
        ("no root", "root is forgotten"): rank(lambda S, r: right_miss(S, r) ** 2),
        ("no squares", "without squares"): rank(lambda S, r: S[r:].sum() / S.sum()),
        ("not a share", "not divided"): rank(lambda S, r: S[r:].norm()),
        ("the next value", "only one singular value"): rank(lambda S, r: S[r] / S.norm()),
        ("of the strongest", "share of the strongest"): rank(lambda S, r: S[r] / S[0]),
        ("kept", "what is kept"): rank_by_what_is_kept,
        ("one too many", "one too many"): lambda m, a: rank(right_miss)(m, a) + 1,
        ("one too few", "one too few"): lambda m, a: rank(right_miss)(m, a) - 1,
        ("from rank 1", "rank 0 is never tried"): rank_between(1, 0),
        ("full rank left out", "full rank is never reached"): rank_between(0, 1),
        ("no rank at the end", "nothing is returned: return that"): loop_without_an_end(),
        ("a miss of 0", "never allowed"): loop_without_an_end(
            lambda S: len(S) + 1, lambda miss, allowed: miss < allowed
        ),
        ("a tensor", "whole number"): lambda m, a: torch.tensor(rank(right_miss)(m, a)),
        ("always the full rank", "in order"): lambda m, a: min(m.shape),
    },
    "1.2": {
        ("B as it is", "still has d rows|W_p has to act on it"): pairs(lambda W, B: B),
        ("W on the side of A", "acts on A's side"): pairs(
            lambda W, B: B, lambda W, A: A @ W if W.shape[0] == W.shape[1] else A
        ),
        ("transposed", "is transposed"): pairs(
            lambda W, B: (W.T if W.shape[0] == W.shape[1] else W) @ B
        ),
        ("twice", "W_p is in it twice"): pairs(
            lambda W, B: W @ B, lambda W, A: A @ W if W.shape[0] == W.shape[1] else A
        ),
        ("turned round", "A_p first"): lambda w, A, B: {
            p: pair[::-1] for p, pair in pairs(torch.matmul)(w, A, B).items()
        },
        ("a whole matrix", "no pair"): lambda w, A, B: {
            p: (A, weight @ B @ A) for p, weight in w.items()
        },
        ("only q", "every part"): lambda w, A, B: {"q": (A, w["q"] @ B)},
        ("q for all", "serves for every part|B_p"): lambda w, A, B: {p: (A, w["q"] @ B) for p in w},
        ("no pairs", "A_p is"): lambda w, A, B: dict.fromkeys(w),
        ("two kinds of numbers", "of different kinds"): pairs(
            torch.matmul, lambda weight, A: A.double()
        ),
        ("a list", "return a dict"): lambda w, A, B: [(A, weight @ B) for weight in w.values()],
        ("in place", "changed in place"): pairs_in_place,
    },
    "1.3": {
        ("cut afterwards", "cut to rank r after solving"): nearest(cut_afterwards),
        ("cut before", "before the projection"): nearest(cut_before),
        ("only q", "only q"): nearest(only_q),
        ("means", "averaged"): nearest(of_means),
        ("by place", "in another order"): lambda w, c, r: nearest_by_normal_equations(
            w, dict(zip(w, c.values(), strict=True)), r
        ),
        ("no values", "singular values are left out"): nearest(without_values),
        ("values twice", "in it twice"): nearest(values_twice),
        ("columns of Vh", "columns of Vh"): nearest(columns_of_Vh),
        ("no R", "R is left out"): nearest(without_R),
        ("turned round", "A .* first"): lambda w, c, r: nearest_by_normal_equations(w, c, r)[::-1],
        ("one matrix", "A holds r rows"): lambda w, c, r: (
            torch.linalg.lstsq(stacked(w), stacked(c)).solution
        ),
        ("zeros", "three steps"): nearest(lambda W, c, r, *_: (0 * W[: W.shape[1], :r], 0 * W[:r])),
    },
    "1.4": {
        ("no W", "gradient of LoRA's B"): gradient(lambda W, g: g),
        ("W not transposed", "not transposed"): gradient(lambda W, g: W @ g),
        ("g transposed", "gradient is transposed"): gradient(lambda W, g: g.T @ W),
        ("only q", "only q is counted"): gradient(parts=("q",)),
        ("by place", "paired by their place"): lambda w, g, A, s: gradient_by_autograd(
            w, dict(zip(w, g.values(), strict=True)), A, s
        ),
        ("no scale", "scale is forgotten"): gradient(end=lambda t, A, s: t @ A.T),
        ("scale twice", "applied twice"): gradient(end=lambda t, A, s: s * s * t @ A.T),
        ("a mean", "averaged"): gradient(end=lambda t, A, s: s * t @ A.T / 3),
        ("a step", "sign is turned"): gradient(end=lambda t, A, s: -s * t @ A.T),
        ("no A", "A is left out"): gradient(end=lambda t, A, s: s * t),
        ("exchanged", "factors are exchanged"): gradient(lambda W, g: g @ W.T),
        ("the last part", "only v is counted"): gradient(parts=("v",)),
        ("over the rank", "divided by the rank"): gradient(
            end=lambda t, A, s: s / len(A) * t @ A.T
        ),
        ("float64", "of float64"): gradient(end=lambda t, A, s: s * t.double() @ A.double().T),
        ("turned", "has to be transposed"): gradient(end=lambda t, A, s: s * A @ t.T),
        ("sums first", "add the products"): gradient_of_sums,
        ("in place", "changed in place"): gradient_in_place,
    },
}
