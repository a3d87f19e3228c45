"""Independent answers: numpy alone, dense float64 matrices, `np.linalg.svd`; nothing of ours."""

import numpy as np


def directions(A, B, scale, side):
    """(U, S) of one side, from dense float64 matrices."""
    A, B = np.asarray(A, dtype=np.float64), np.asarray(B, dtype=np.float64)
    if side == "A":
        _, S, Vh = np.linalg.svd(A, full_matrices=False)
        return Vh.T, S
    if side == "B":
        U, S, _ = np.linalg.svd(B, full_matrices=False)
        return U, S
    r = A.shape[0]
    U, S, Vh = np.linalg.svd(scale * (B @ A), full_matrices=False)
    return (Vh.T if side == "in" else U)[:, :r], S[:r]


def phi(U, V):
    """phi(i, j) by its definition, one cell at a time."""
    out = np.empty((U.shape[1], V.shape[1]))
    for i in range(1, U.shape[1] + 1):
        for j in range(1, V.shape[1] + 1):
            out[i - 1, j - 1] = np.linalg.norm(U[:, :i].T @ V[:, :j]) ** 2 / min(i, j)
    return out


def haar(rng, d, k):
    """Orthonormal basis of a uniformly random k-dimensional subspace of R^d."""
    Q, R = np.linalg.qr(rng.standard_normal((d, k)))
    return Q * np.sign(np.diag(R))


def merge(deltas, weights):
    """Norms, cosines of the weighted updates, energy and what is kept, from dense matrices."""
    deltas = [np.asarray(d, dtype=np.float64) for d in deltas]
    parts = [w * d for w, d in zip(weights, deltas, strict=True)]
    total = np.sum(parts, axis=0)
    norms = np.array([np.linalg.norm(p) for p in parts])
    cosines = np.array([[np.sum(p * q) for p in parts] for q in parts]) / np.outer(norms, norms)
    energy = np.linalg.norm(total) ** 2 / np.sum(norms**2)
    kept = [np.sum(total * d) / np.sum(d * d) for d in deltas]
    return [np.linalg.norm(d) for d in deltas], cosines, energy, kept
