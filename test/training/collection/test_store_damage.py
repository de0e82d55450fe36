"""A store that was changed after it was written is refused with the name of the part, or reads as it was."""

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from store_parts import SHAPE, part
from typer.testing import CliRunner

from training.cli.main import app
from training.collection.manifest import fingerprint, manifest_text, read_manifest
from training.collection.maps import StoredMaps
from training.collection.part_digests import DIGESTS, write_digests
from training.collection.part_reading import NAMES
from training.collection.store import open_store, part_folder, read_responses, read_skipped, read_store, write_part
from training.collection.store_verify import verify_store
from training.errors import DataError

MANIFEST = {
    "model": {"num_layers": SHAPE[0], "num_heads": SHAPE[1]},
    "pairs": ["1:key", "2:key", "3:mug", "4:mug"],
    "truth": [[[1.5, 2.25, 30.0, 40.0]], [[1, 2, 3, 4]], [[0, 0, 5, 5]], []],
    "samples": 10,
    "max_new_tokens": 256,
    "seed": 3,
}


def write(folder):
    open_store(folder, MANIFEST)
    for number, written in enumerate([part(0, 3), part(1, 2, {3: "no picture"}), part(2, 4)]):
        write_part(folder, number, written)
    return folder


def everything(folder):
    """All that a store gives, comparable."""
    data = read_store(folder)
    index = np.arange(len(data.iou))
    files, part, place = data.maps.files, data.maps.part, data.maps._place
    on_disk = StoredMaps(files, tuple(place[part == i] for i in range(len(files))), memory=0)
    arrays = {name: value.tobytes() for name, value in vars(data).items() if isinstance(value, np.ndarray)}
    truth = [data.truth(i) for i in range(4)]
    maps = data.maps[index].tobytes(), on_disk[index].tobytes(), data.maps.distinct()
    return arrays, maps, data.manifest, truth, read_responses(folder), read_skipped(folder)


def flip(file, rng, others):
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def cut(file, rng, others):
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(len(content))])


def grow(file, rng, others):
    file.write_bytes(file.read_bytes() + rng.randbytes(1 + rng.randrange(9)))


def zero(file, rng, others):
    file.write_bytes(bytes(len(file.read_bytes())))


def overwrite_a_run(file, rng, others):
    content = bytearray(file.read_bytes())
    at = rng.randrange(len(content))
    content[at : at + 8] = rng.randbytes(len(content[at : at + 8]))
    file.write_bytes(content)


def another_digit(file, rng, others):
    """What a person's editor does."""
    content = bytearray(file.read_bytes())
    digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
    if digits:
        content[rng.choice(digits)] = ord(rng.choice("0123456789"))
    file.write_bytes(content)


def delete(file, rng, others):
    file.unlink()


def a_folder_instead(file, rng, others):
    file.unlink()
    file.mkdir()


def a_link_instead(file, rng, others):
    target = file.with_name(file.name + ".elsewhere")
    file.rename(target)
    file.symlink_to(target)


def anothers_content(file, rng, others):
    file.write_bytes(rng.choice(others).read_bytes())


def exchange(file, rng, others):
    other = rng.choice([o for o in others if o != file])
    mine, theirs = file.read_bytes(), other.read_bytes()
    file.write_bytes(theirs)
    other.write_bytes(mine)


MUTATIONS = [
    *(flip,) * 6,
    *(cut,) * 2,
    *(overwrite_a_run,) * 2,
    *(another_digit,) * 2,
    grow,
    zero,
    delete,
    a_folder_instead,
    a_link_instead,
    *(anothers_content,) * 2,
    exchange,
]


def files_of(folder):
    return sorted(f for f in folder.rglob("*") if f.is_file())


def contents(folder):
    """Everything below ``folder``: bytes of a file, None for a folder, "link" for a link."""
    return {
        path.relative_to(folder): "link" if path.is_symlink() else None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def restore(folder, wanted):
    """Put back what differs from ``wanted``. To copy a store takes far longer: it has 67 folders."""
    found = contents(folder)
    different = [name for name in found if name not in wanted or found[name] != wanted[name]]
    for path in sorted((folder / name for name in different), reverse=True):  # what is in a folder before the folder
        (path.rmdir if found[path.relative_to(folder)] is None else path.unlink)()
    for name in sorted(name for name in wanted if name in different or name not in found):
        if wanted[name] is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(wanted[name])


def test_no_damage_goes_unnoticed(tmp_path):
    whole = write(tmp_path / "whole")
    content = contents(whole)
    folder = shutil.copytree(whole, tmp_path / "broken")
    told, count, refused = everything(whole), 0, 0
    for name in [f.relative_to(whole) for f in files_of(whole)]:
        every = name.parts[0] in ("part_00001", "manifest.json")
        for seed, mutate in enumerate(MUTATIONS if every else [flip, delete]):
            rng = random.Random(f"{name}-{seed}")
            restore(folder, content)
            mutate(folder / name, rng, files_of(folder))
            what, count = f"{mutate.__name__} of {name}", count + 1
            try:
                assert everything(folder) == told, what
            except DataError as error:
                parts = "part_0" in str(error) if name.parts[0] != "manifest.json" else str(folder) in str(error)
                assert parts or "manifest.json" in str(error), f"{what}: {error}"
                refused += 1
                if mutate in (flip, delete):
                    with pytest.raises(DataError):
                        verify_store(folder)
    assert count > 300 and refused > 0.9 * count
    restore(folder, content)
    assert contents(folder) == content and everything(folder) == told


@pytest.mark.parametrize("seed", range(5))
def test_parts_that_changed_places_are_noticed(tmp_path, seed):
    folder = write(tmp_path)
    rng = random.Random(seed)
    a, b = (part_folder(folder, n) for n in rng.sample(range(3), 2))
    if seed % 2:
        shutil.rmtree(b)
        shutil.copytree(a, b)
    else:
        a.rename(folder / "aside")
        b.rename(a)
        (folder / "aside").rename(b)
    for read in (read_store, read_responses, read_skipped, verify_store):
        with pytest.raises(DataError, match=r"part_0000\d is damaged .*moved here"):
            read(folder)


def test_a_part_of_another_collection_is_noticed(tmp_path):
    folder, other = write(tmp_path / "one"), tmp_path / "other"
    open_store(other, MANIFEST | {"seed": 4})
    write_part(other, 0, part(0, 3))
    shutil.rmtree(part_folder(folder, 0))
    shutil.copytree(part_folder(other, 0), part_folder(folder, 0))
    for read in (read_store, read_responses, read_skipped, verify_store):
        with pytest.raises(DataError, match=f"part_00000 .*not of {fingerprint(read_manifest(folder))}"):
            read(folder)


def test_a_file_that_does_not_belong_to_a_part_is_noticed(tmp_path):
    folder = write(tmp_path)
    (part_folder(folder, 1) / "rows" / ".zarray").write_text("{}")
    with pytest.raises(DataError, match=r"part_00001 .*\.zarray does not belong"):
        read_store(folder)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), PermissionError(13, "no"), MemoryError()])
def test_a_part_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch, error):
    def failing(*args):
        raise error

    folder = write(tmp_path)
    monkeypatch.setattr("training.collection.part_digests.hashlib.file_digest", failing)
    with pytest.raises(DataError, match=r"part_00000 cannot be read \(") as caught:
        read_store(folder)
    assert "delete" not in str(caught.value)


def store_of(folder, changed):
    open_store(folder, MANIFEST)
    write_part(folder, 0, changed)
    return folder


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("iou", 1.5),
        ("iou", -0.1),
        ("iou", np.nan),
        ("x1", np.inf),
        ("x1", 30.5),  # where x2 is
        ("x2", 3452.8),  # outside the picture
        ("y1", -1),
        ("y2", 48.5),
        ("pair", 2),
        ("pair", 0.5),
        ("image", 1.5),
        ("response", 10),
        ("response", -1),
        ("order", -1),
        ("width", 0),
        ("height", 1e9),
        ("grid_h", 0),
        ("grid_w", 2.5),
        ("token_x1", 300),
        ("token_y2", -1),
    ],
)
def test_a_senseless_row_is_refused_though_its_digest_is_right(tmp_path, column, value):
    made = part(0, 3)
    made.rows[1, NAMES.index(column)] = value
    with pytest.raises(DataError, match="part_00000 is damaged"):
        read_store(store_of(tmp_path, made))


@pytest.mark.parametrize(
    "changes",
    [
        {"entropy": np.full((3, 4, 2, 3), np.nan, np.float32)},
        {"entropy": np.full((3, 4, 2, 3), -1, np.float32)},
        {"entropy": np.ones((3, 4, 2, 2), np.float32)},
        {"place": np.full((3, 4), 6, np.int32)},
        {"place": np.full((3, 4), -1, np.int32)},
        {"place": np.zeros((2, 4), np.int32)},
        {"place": np.zeros((3, 4))},
        {"unit": np.full((6, 2, 3), np.inf, np.float32)},
        {"unit": np.full((6, 2, 3), -1, np.float32)},
        {"unit": np.ones((5, 2, 3), np.float32)},
        {"codes": np.full((6, *SHAPE), 200, np.uint8)},
        {"codes": np.zeros((6, 3, 3, 4, 4), np.uint8)},
        {"rows": np.zeros((3, 5))},
        {"pairs": (7,)},
        {"pairs": (0, 0)},
        {"pairs": (0,), "skipped": {0: "both"}},
        {"skipped": {-1: "none such"}},
    ],
)
def test_senseless_arrays_are_refused_though_their_digest_is_right(tmp_path, changes):
    with pytest.raises(DataError, match="part_00000 is damaged"):
        everything(store_of(tmp_path, replace(part(0, 3), **changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"pair": 1},
        {"pair": "0"},
        {"response": -1},
        {"response": True},
        {"text": None},
        {"num_boxes": 1.5},
        {"finished": 1},
        {"problem": None},
        {"token_logprob": [0.5]},
        {"token_logprob": None},
        {"token_entropy": "abc"},
        {"token_entropy": [float("nan")]},
        {"token_entropy": [None]},
        {"token_entropy": [10**400]},
        {"hidden": 0.5},
        {"hidden": [True]},
        {"hidden": [float("nan")]},
        {"hidden": [0.5, 1e39]},  # more than float32 holds
        {"hidden": [10**400]},
    ],
)
def test_a_senseless_response_is_refused_though_its_digest_is_right(tmp_path, changes):
    made = part(0, 3)
    folder = store_of(tmp_path, replace(made, answers=({**made.answers[0], **changes},)))
    with pytest.raises(DataError, match="part_00000 is damaged"):
        read_responses(folder)


def test_a_pair_in_two_parts_is_refused(tmp_path):
    folder = store_of(tmp_path, part(0, 3))
    write_part(folder, 1, part(0, 2))
    with pytest.raises(DataError, match=r"part_00001 .*pair 0 is in another part"):
        read_store(folder)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("rows/zarr.json", '"zstd"', '"numcodecs.pickle"'),
        ("rows/zarr.json", '"float64"', '"string"'),
        ("codes/zarr.json", '"crc32c"', '"gzip"'),
        ("codes/zarr.json", "6,", "600000000,"),
        ("rows/zarr.json", "3,", "300000000,"),
        ("zarr.json", '"zarr_format": 3', '"zarr_format": 2'),
    ],
)
def test_arrays_that_are_described_otherwise_are_refused_though_their_digest_is_right(tmp_path, name, old, new):
    folder = store_of(tmp_path, part(0, 3))
    file = part_folder(folder, 0) / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    (part_folder(folder, 0) / DIGESTS).unlink()
    write_digests(part_folder(folder, 0), 0, fingerprint(read_manifest(folder)))
    with pytest.raises(DataError, match="part_00000 is damaged"):
        everything(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"truth": [[]]},
        {"truth": [[[1, 2, 3, 10**400]], [], [], []]},
        {"truth": [[[1, 2, 3, float("nan")]], [], [], []]},
        {"truth": [[[1, 2, 3]], [], [], []]},
        {"truth": [[["1", 2, 3, 4]], [], [], []]},
        {"truth": [5, [], [], []]},
        {"kinds": "small"},
        {"pairs": 5},
    ],
)
def test_a_manifest_whose_lists_do_not_fit_is_refused(tmp_path, changes):
    folder = write(tmp_path)
    (folder / "manifest.json").write_text(manifest_text(read_manifest(folder) | changes))
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        read_store(folder)


def test_a_store_of_an_earlier_format_is_refused_in_words(tmp_path):
    folder = write(tmp_path)
    (folder / "manifest.json").write_text('{"format": 3, "levels": 72, "pairs": []}')
    with pytest.raises(DataError, match="in format 3; this one reads format 5, whose files carry digests"):
        read_store(folder)


def test_verifying_counts_what_was_compared(tmp_path):
    folder = write(tmp_path)
    told = verify_store(folder)
    assert told.parts == 3 and told.candidates == 9 and told.responses == 3
    assert told.files == len(files_of(folder)) - 1 - 3  # neither the manifest nor the files of digests are in one


def test_the_command_verifies_a_collection(tmp_path):
    folder = write(tmp_path)
    done = CliRunner().invoke(app, ["check-store", "--store", str(folder)])
    assert done.exit_code == 0 and "candidates: 9" in done.output
    for number in (0, 2):
        chunk = next(f for f in (part_folder(folder, number) / "codes" / "c").rglob("*") if f.is_file())
        flip(chunk, random.Random(number), [])
    done = CliRunner().invoke(app, ["check-store", "--store", str(folder)])
    assert isinstance(done.exception, DataError)
    assert "2 of 3 parts are damaged" in str(done.exception) and "part_00002" in str(done.exception)


@pytest.mark.parametrize("arguments", [[], ["--model", "tiny-internvl"], ["--data", "instances.json"]])
def test_the_command_says_what_it_lacks(arguments):
    done = CliRunner().invoke(app, ["check-store", *arguments])
    assert done.exit_code == 2 and "--" in done.output
