"""A made-up collection whose attention knows the IoU: head (1, 0) is the more concentrated, the better the box."""

from dataclasses import replace

import numpy as np

from acs_core.artifacts.identity import ModelIdentity
from training.collection.part_arrays import encode
from training.collection.store import CollectionPart, open_store, read_store, write_part

LAYERS, HEADS, SIDE, TELLING = 3, 2, 4, (1, 0)
IDENTITY = ModelIdentity("made-up", "internvl", LAYERS, HEADS)


def made_up(folder, pairs=60, per_pair=5, seed=0, temperature=1.0, identity=IDENTITY):
    """Writes the collection into ``folder``, in three parts, and reads it back."""
    rng = np.random.default_rng(seed)
    layers, heads = identity.num_layers, identity.num_heads
    count = pairs * per_pair
    iou = np.where(rng.random(count) < 0.2, 0.0, rng.random(count)).astype(np.float32)
    maps = rng.random((count, 4, layers, heads, SIDE, SIDE)).astype(np.float32)
    peak = np.zeros((SIDE, SIDE), np.float32)
    peak[1, 2] = SIDE * SIDE
    maps[:, :, TELLING[0], TELLING[1]] += iou[:, None, None, None] * peak
    maps /= maps.sum(axis=(-2, -1), keepdims=True)
    entropy = -(maps * np.log(maps)).sum(axis=(-2, -1)).astype(np.float32)
    corner = rng.uniform(0, 80, (count, 2))
    pair = np.repeat(np.arange(pairs), per_pair)
    response = np.tile(np.arange(per_pair), pairs)
    columns = (iou, *corner.T, *(corner + 10).T, pair, pair, response, np.zeros(count))
    fixed = np.tile([100, 100, SIDE, SIDE, 1, 2, 3, 4], (count, 1))
    rows = np.concatenate([np.stack(columns, axis=1), fixed], axis=1)
    model = {**identity.to_dict(), "weights": ""}
    kinds = ["small" if i % 2 else "large" for i in range(pairs)]
    keys = [f"{i}:key" for i in range(pairs)]
    manifest = {"model": model, "temperature": temperature, "pairs": keys, "kinds": kinds, "data": f"made-up {seed}"}
    best = [here[np.argmax(iou[here])] for here in (np.flatnonzero(pair == i) for i in range(pairs))]
    manifest["truth"] = [[[*corner[i].tolist(), *(corner[i] + 10).tolist()]] for i in best]
    open_store(folder, manifest | {"versions": {"acs_ros": "0"}, "dtype": "float32"})
    for number, asked in enumerate(np.array_split(np.arange(pairs), 3)):
        here = np.flatnonzero(np.isin(pair, asked))
        codes, unit = encode(maps[here].reshape(-1, layers, heads, SIDE, SIDE))
        place = np.arange(4 * len(here), dtype=np.int32).reshape(-1, 4)
        write_part(
            folder, number, CollectionPart(codes, unit, place, entropy[here], rows[here], tuple(asked.tolist()), {}, ())
        )
    return read_store(folder)


def half_absent(folder, **options):
    """As made_up, with every second question about an absent object, whose boxes are wrong."""
    found = made_up(folder, **options)
    absent = found.pair % 2 == 1
    truth = [[] if i % 2 else boxes for i, boxes in enumerate(found.manifest["truth"])]
    return replace(found, iou=np.where(absent, 0.0, found.iou), manifest=found.manifest | {"truth": truth})
