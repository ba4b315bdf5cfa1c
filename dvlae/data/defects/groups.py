"""Single pixels that stand out together: what chance explains, and what may be an object."""

import numpy as np

# Pixels that are no farther apart, along each axis, form a group.
GROUP_DISTANCE = 5
# Probability of the largest group in an image, or of so many pairs, if defective pixels are at random places.
MAX_CHANCE = 0.01
# In standard deviations: pixels of an object that differ by more are rare.
MAX_DIFFERENCE = 5.0
# The range of the 24 pixels around another one, in standard deviations of normal noise.
RANGE = 4.0
# Mean of photon noise above the lowest of these pixels, in its standard deviations: the mean is not below zero.
LEAST_MEAN = 2.25


def in_groups(places: tuple[np.ndarray, ...], axes: int, size: int) -> np.ndarray:
    """Find pixels that stand in groups which are too large for pixels at random places, such as dotted lines.

    Parameters
    ----------
    places
        Indices of pixels of a channel, each (K,).
    axes
        Number of axes of a plane.
    size
        Number of all pixels of the channel.

    Returns
    -------
    (K,) bool array
        True in such a group, which is an object.
    """
    if not len(places[0]):
        return np.zeros(0, bool)
    clusters, groups = _link(places, axes, 1), _link(places, axes, GROUP_DISTANCE)
    _, firsts = np.unique(clusters, return_index=True)
    sizes = np.bincount(groups[firsts])  # in clusters
    number = len(firsts)
    # At random places, a group that grows from one pixel to the next has Borel's distribution.
    near = number * (2 * GROUP_DISTANCE + 1) ** axes / size
    each = np.arange(1, number + 1)
    steps = np.cumsum(np.log(each))  # log(each!)
    chances = np.exp(-near * each + (each - 1) * np.log(near * each) - steps)
    too_large = number * np.cumsum(chances[::-1])[::-1] < MAX_CHANCE
    return too_large[sizes - 1][groups]


def alike_pairs(
    places: tuple[np.ndarray, ...],
    values: np.ndarray,
    rises: np.ndarray,
    spreads: np.ndarray,
    axes: int,
    size: int,
) -> np.ndarray:
    """Find pairs of neighbours that are equally bright, unless chance or clipping explains it.

    Two defective pixels have two heights, while a small object without any blur may have one. Where a single pixel has
    the very same grey value, all of them are clipped.

    Parameters
    ----------
    places, axes, size
        As for :func:`in_groups`.
    values
        Grey values of the pixels, (K,).
    rises
        Heights of the pixels above their surroundings, (K,).
    spreads
        Range of the grey values around each pixel, (K,).

    Returns
    -------
    (K,) bool array
        True for both pixels of such a pair.
    """
    from scipy import special

    alike = np.zeros(len(rises), bool)
    if len(rises) < 2:
        return alike
    _, clusters, sizes = np.unique(_link(places, axes, 1), return_inverse=True, return_counts=True)
    pairs = np.argsort(clusters, kind="stable")[np.repeat(sizes == 2, sizes)].reshape(-1, 2)
    expected = len(rises) ** 2 * (3**axes - 1) / (2 * size)
    if not len(pairs) or special.pdtrc(len(pairs) - 1, expected) >= MAX_CHANCE:
        return alike
    # A much lower neighbour is in the range around the higher one.
    rise, spread = rises[pairs].max(axis=1), spreads[pairs].min(axis=1)
    # The variance of the background, and that of photon noise, which grows with the height.
    noise = np.sqrt((spread / RANGE) ** 2 + rise * spread / (RANGE * LEAST_MEAN))
    clipped = np.isin(values, values[sizes[clusters] == 1])[pairs].all(axis=1)
    alike[pairs[~clipped & (np.abs(np.diff(rises[pairs], axis=1)[:, 0]) <= MAX_DIFFERENCE * noise)]] = True
    return alike


def _link(places: tuple[np.ndarray, ...], axes: int, distance: int) -> np.ndarray:
    """Return the group of each pixel, (K,): steps of at most a distance along each axis lead from one to the next.

    Only the places are needed: a label of each pixel of a very large image would not fit into the memory.
    """
    from scipy import sparse, spatial

    # Pixels of different planes are not neighbours.
    apart = [place * (distance + 1) for place in places[:-axes]]
    pairs = spatial.cKDTree(np.stack([*apart, *places[-axes:]], axis=1)).query_pairs(distance, np.inf, 0, "ndarray")
    graph = sparse.coo_array((np.ones(len(pairs), bool), pairs.T), (len(places[0]),) * 2)
    return sparse.csgraph.connected_components(graph, directed=False)[1]
