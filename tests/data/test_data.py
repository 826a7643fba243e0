import io
import json
import pickle
from collections import Counter
from hashlib import md5
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100

from convsmith.calibration.variations import flip, shift
from convsmith.data import PLAIN, Augment, Data, StreamSplit, TensorSplit, load_data
from convsmith.data.augment import cutout
from convsmith.data.images import read, to_tensor
from convsmith.data.parquet import open_parquet
from convsmith.data.records import Normalize
from convsmith.errors import ConvsmithError

SHARED = Path(__file__).parents[3] / "shared/data/cifar10"
NAMES = ["ant", "bee", "cat"]
# From Python 3.12 on, starting worker processes by fork warns where other threads run.
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def pixels(seed, size=(8, 8), channels=3):
    shape = (size[1], size[0], 3) if channels == 3 else (size[1], size[0])
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def write_parquet(path, encoded, labels, *, names=NAMES, image="img", label="label", plain=False):
    column = pa.array(encoded, pa.binary())
    if not plain:
        column = pa.StructArray.from_arrays([column, pa.nulls(len(encoded), pa.string())], ["bytes", "path"])
    table = pa.table({image: column, label: pa.array(labels)})
    if names:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


@pytest.fixture
def parquet(tmp_path):
    """Nine train rows in two files and three test rows; row k is pixels(k), labels go round."""
    write_parquet(tmp_path / "train-0-of-2.parquet", [png(pixels(k)) for k in range(5)], [0, 1, 2, 0, 1])
    write_parquet(tmp_path / "train-1-of-2.parquet", [png(pixels(k)) for k in range(5, 9)], [2, 0, 1, 2])
    write_parquet(tmp_path / "test-0-of-1.parquet", [png(pixels(k)) for k in range(20, 23)], [0, 1, 2])
    return tmp_path


@pytest.fixture
def folders(tmp_path):
    """Four train and two validation images of 16x16 in each of three classes; the seed is 10 class + number."""
    for half, count in (("train", 4), ("val", 2)):
        for label, name in enumerate(NAMES):
            (tmp_path / half / name).mkdir(parents=True)
            for k in range(count):
                Image.fromarray(pixels(10 * label + k, (16, 16))).save(tmp_path / half / name / f"{k}.png")
    return tmp_path


def taken(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


# The digits.


def test_digits_are_all_of_scikit_learns_split_by_class():
    data, again, source = load_data("digits"), load_data("digits"), load_digits()
    assert (data.classes, data.shape, data.augment.flip) == (tuple("0123456789"), (3, 32, 32), False)
    assert torch.equal(data.train.images, again.train.images)
    assert torch.equal(data.test.labels, again.test.labels)
    everyone = Counter(source.target.tolist())
    held_out = Counter(data.test.labels.tolist())
    assert all(abs(held_out[label] - count / 5) < 1 for label, count in everyone.items())
    # Enlarged images that are the same both ways round: as many and as different as the source's.
    both = torch.cat([data.train.images, data.test.images])
    assert len({image.numpy().tobytes() for image in both}) == len({image.tobytes() for image in source.images})


def test_digits_are_enlarged_bilinearly():
    places = (np.arange(32) + 0.5) / 4 - 0.5  # pixel centers in the coordinates of the 8x8 image; numpy holds the ends

    def enlarged(image):
        rows = np.stack([np.interp(places, np.arange(8), row) for row in image])
        return np.stack([np.interp(places, np.arange(8), column) for column in rows.T]).T

    data, source = load_data("digits"), load_digits()
    wanted = {np.round(enlarged(image) * 255 / 16).astype(int).tobytes(): label for image, label in
              zip(source.images, source.target, strict=True)}  # fmt: skip
    hits = sum(wanted.get(image[0].numpy().astype(int).tobytes()) == int(label)
               for image, label in zip(data.test.images, data.test.labels, strict=True))  # fmt: skip
    assert hits > 0.9 * len(data.test)  # halves may be rounded either way
    assert torch.equal(data.test.images[:, 0], data.test.images[:, 2])


# Batches.


@pytest.fixture(params=["decoded", "streamed"])
def split(request, folders):
    limit = 1 << 20 if request.param == "decoded" else 0
    loaded = load_data(f"imagefolder:{folders}", input=(3, 14, 14), limit=limit, workers=0).train
    assert isinstance(loaded, TensorSplit if request.param == "decoded" else StreamSplit)
    return loaded


def test_batches_are_all_images_in_order(split):
    labels = [labels.tolist() for _, labels in split.batches(5)]
    assert labels == [[0, 0, 0, 0, 1], [1, 1, 1, 2, 2], [2, 2]]
    assert (len(split), split.classes, split.shape) == (12, 3, (3, 14, 14))
    one_by_one = taken(split.batches(1))[0]
    assert torch.equal(taken(split.batches(5))[0], one_by_one)


@pytest.mark.parametrize("augment", [PLAIN, Augment(cutout=0.3)])
def test_a_pass_depends_on_seed_and_epoch_alone(split, augment):
    def epoch(seed, number):
        return taken(split.shuffled(4, seed=seed, epoch=number, augment=augment))

    first = epoch(0, 3)
    others = epoch(0, 4), epoch(1, 3)
    again = epoch(0, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(not torch.equal(first[0], other[0]) for other in others)


def test_a_pass_leaves_torchs_generator_alone(split):
    before = torch.get_rng_state()
    taken(split.shuffled(4, seed=0, epoch=0, augment=Augment(cutout=0.5)))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_plain_pass_takes_each_image_at_most_once(split):
    plain = {image.numpy().tobytes(): int(label) for image, label in zip(*taken(split.batches(12)), strict=True)}
    images, labels = taken(split.shuffled(5, seed=0, epoch=0))
    seen = [image.numpy().tobytes() for image in images]
    assert len(seen) == len(set(seen)) == 10  # two whole batches of five
    assert [plain[image] for image in seen] == labels.tolist()
    assert len(taken(split.shuffled(99, seed=0, epoch=0))[1]) == 12  # a set of less than a batch is one


def test_shares_make_up_the_batches(split):
    whole = list(split.shuffled(6, seed=0, epoch=1, augment=PLAIN))
    shares = [list(split.shuffled(6, seed=0, epoch=1, augment=PLAIN, share=(rank, 3))) for rank in range(3)]
    for number, (images, labels) in enumerate(whole):
        for rank in range(3):
            assert torch.equal(shares[rank][number][0], images[rank::3])
            assert torch.equal(shares[rank][number][1], labels[rank::3])


def test_normalization():
    data = load_data("digits", mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    images, _ = next(data.test.batches(4))
    wanted = data.test.images[:4].numpy() / 255 - np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1)
    wanted /= np.array([0.5, 1.0, 2.0]).reshape(3, 1, 1)
    assert np.allclose(images.numpy(), wanted, atol=1e-6)
    assert load_data("digits").mean == (0.485, 0.456, 0.406)


# Augmentation.


def generator():
    return torch.Generator().manual_seed(0)


def test_shift_moves_by_whole_pixels_and_brings_zeros_in():
    image = torch.from_numpy(pixels(1)).permute(2, 0, 1)
    padded = np.pad(image.numpy(), ((0, 0), (2, 2), (2, 2)))
    moves = {padded[:, y : y + 8, x : x + 8].tobytes(): (y, x) for y in range(5) for x in range(5)}
    moved = shift(image.expand(1000, 3, 8, 8), 0.25, generator())
    assert Counter(moves[one.numpy().tobytes()] for one in moved).keys() == set(moves.values())


def test_flip_mirrors_half_of_the_images():
    image = torch.from_numpy(pixels(1)).permute(2, 0, 1)
    flipped = flip(image.expand(1000, 3, 8, 8), generator())
    mirrored = (flipped == image.flip(2)).flatten(1).all(1)
    assert ((flipped == image).flatten(1).all(1) ^ mirrored).all()
    assert 400 < mirrored.sum() < 600


def test_cutout_blackens_one_square():
    holes = cutout(torch.ones(1000, 1, 8, 8, dtype=torch.uint8), 0.5, generator()) == 0
    for hole in holes[:, 0]:
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, rows.unsqueeze(1) & columns)  # a rectangle
        assert 2 <= rows.sum() <= 4  # of half the side, or less at the border
        assert 2 <= columns.sum() <= 4
    assert holes.flatten(1).any(0).all()


@pytest.mark.parametrize("field", ["shift", "cutout", "area"])
@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_augment_refuses(field, value):
    with pytest.raises(ConvsmithError, match=f"{field} is {value}"):
        Augment(**{field: value})


# Parquet files.


def test_parquet_rows(parquet):
    data = load_data(str(parquet))
    assert (data.classes, data.shape, len(data.train), len(data.test)) == (tuple(NAMES), (3, 8, 8), 9, 3)
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    wanted = np.stack([pixels(k) for k in range(9)]).transpose(0, 3, 1, 2)
    assert np.array_equal(data.train.images.numpy(), wanted)


LAYOUTS = {
    "image column": {"image": "image"},
    "plain bytes": {"plain": True},
    "fine labels": {"label": "fine_label"},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("reference", ["{}", "cifar100:{}"])
def test_parquet_layouts(tmp_path, layout, reference):
    for half in ("train", "test"):
        write_parquet(tmp_path / f"{half}-0.parquet", [png(pixels(1)), png(pixels(2))], [2, 0], **layout)
    data = load_data(reference.format(tmp_path))
    assert data.test.labels.tolist() == [2, 0]
    assert data.classes == tuple(NAMES)


def test_classes_without_names_are_numbered(tmp_path):
    write_parquet(tmp_path / "train-0.parquet", [png(pixels(1))], [1], names=None)
    write_parquet(tmp_path / "test-0.parquet", [png(pixels(1))], [3], names=None)
    assert load_data(f"cifar10:{tmp_path}").classes == ("0", "1", "2", "3")


def truncated(folder):
    write_parquet(folder / "test-0-of-1.parquet", [png(pixels(1)), png(pixels(2))[:60]], [0, 1])


def other_size(folder):
    write_parquet(folder / "test-0-of-1.parquet", [png(pixels(1, (8, 9)))], [0])


def relabel(*labels):
    def change(folder):
        write_parquet(folder / "test-0-of-1.parquet", [png(pixels(1))] * len(labels), labels)

    return change


def later_file(folder):
    write_parquet(folder / "train-1-of-2.parquet", [png(pixels(1))] * 2, [0, 9])


def another_column(folder):
    write_parquet(folder / "train-1-of-2.parquet", [b""], [0], image="image")


def deep(folder):
    write_parquet(folder / "test-0-of-1.parquet", [png(pixels(1, channels=1).astype(np.uint16) * 200)], [0])


def unnumbered(label):
    def change(folder):
        write_parquet(folder / "train-0-of-2.parquet", [png(pixels(1))], [label], names=None)

    return change


def described(text):
    def change(folder):
        path = folder / "train-0-of-2.parquet"
        pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": text}), path)

    return change


def cells(values):
    return lambda f: pq.write_table(pa.table({"img": values, "label": [0] * len(values)}), f / "test-0-of-1.parquet")


PARQUET_REFUSALS = {
    "a label no machine counts up to": (unnumbered(2**40), "by the largest label: got 1,099,511,627,777; give at most"),
    "names that are no JSON": (described("{"), "train-0-of-2.parquet: its 'huggingface' entry names no classes"),
    "names elsewhere": (described('{"info": {"features": []}}'), "entry names no classes"),
    "a record without bytes": (cells([{"x": 1}]), r"column img is struct<x: int64>; images must be \{bytes, path\} or"),
    "images that are words": (cells(["x"]), "column img is string; images must be"),
    "no test files": (lambda folder: (folder / "test-0-of-1.parquet").unlink(), "no test-.*parquet files"),
    "broken file": (lambda folder: (folder / "test-0-of-1.parquet").write_bytes(b"PAR1"), "not a readable Parquet"),
    "no rows": (relabel(), "holds no rows"),
    "no images": (lambda f: write_parquet(f / "test-0-of-1.parquet", [b""], [0], image="jpg"), "one of img, image"),
    "no labels": (lambda f: write_parquet(f / "test-0-of-1.parquet", [b""], [0], label="y"), "of label, fine_label"),
    "gap in the labels": (relabel(0, None), "with 1 gaps"),
    "labels that are words": (relabel("ant"), "whole numbers"),
    "label outside": (relabel(0, 3), r"test-0-of-1.parquet row 1: label 3 is outside the 3 classes"),
    "label in a later file": (later_file, "train-1-of-2.parquet row 1: label 9 is outside"),
    "negative label": (relabel(-1), "label -1 is outside"),
    "truncated image": (truncated, r"test-0-of-1.parquet row 1: not a readable image"),
    "no image bytes": (lambda f: write_parquet(f / "test-0-of-1.parquet", [None], [0]), "row 0: holds no image bytes"),
    "other size": (other_size, r"row 0: 9x8 pixels where others have 8x8; give an input shape"),
    "16 bits": (deep, "mode I;16; convert it to 8 bits"),
    "later file differs": (another_column, "train-1-of-2.parquet: has columns image, label; one of img is needed"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), PARQUET_REFUSALS.values(), ids=PARQUET_REFUSALS)
def test_parquet_refusals(parquet, change, sentence):
    change(parquet)
    with pytest.raises(ConvsmithError, match=sentence) as refusal:
        load_data(str(parquet))
    assert "\n" not in str(refusal.value)


# CIFAR as torchvision keeps it.


@pytest.mark.parametrize(
    ("dataset", "name", "labels"), [(CIFAR10, "cifar10", "labels"), (CIFAR100, "cifar100", "fine_labels")]
)
def test_cifar_batches(tmp_path, monkeypatch, dataset, name, labels):
    folder = tmp_path / dataset.base_folder
    folder.mkdir()
    rows = {file: np.random.default_rng(k).integers(0, 256, (2, 3072), dtype=np.uint8)
            for k, (file, _) in enumerate(dataset.train_list + dataset.test_list)}  # fmt: skip
    for file, data in rows.items():
        (folder / file).write_bytes(pickle.dumps({"data": data, labels: [1, 2]}))
    listed = pickle.dumps({dataset.meta["key"]: NAMES})
    (folder / dataset.meta["filename"]).write_bytes(listed)
    monkeypatch.setattr(dataset, "_check_integrity", lambda self: True)  # the real files' checksums
    monkeypatch.setitem(dataset.meta, "md5", md5(listed).hexdigest())
    data = load_data(f"{name}:{tmp_path}")
    assert (data.classes, data.shape, len(data.train)) == (tuple(NAMES), (3, 32, 32), 2 * len(dataset.train_list))
    assert np.array_equal(data.test.images.numpy(), rows[dataset.test_list[0][0]].reshape(2, 3, 32, 32))
    assert data.test.labels.tolist() == [1, 2]


# Folders of images.


def test_imagefolder(folders):
    data = load_data(f"imagefolder:{folders}")
    assert (data.classes, data.shape, len(data.train), len(data.test)) == (tuple(NAMES), (3, 16, 16), 12, 6)
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(data.test.images[3].numpy(), pixels(11, (16, 16)).transpose(2, 0, 1))


FOLDER_REFUSALS = {
    "no test": (lambda f: (f / "val").rename(f / "other"), "needs the folders train and test"),
    "no train": (lambda f: (f / "train").rename(f / "other"), "needs the folders train and test"),
    "empty class": (lambda f: (f / "train" / "dog").mkdir(), "train/dog: holds no image files"),
    "unknown class": (lambda f: (f / "val/ant").rename(f / "val/dog"), "val/dog: a class that train does not have"),
    "corrupt": (lambda f: (f / "val/bee/1.png").write_bytes(b"GIF"), "val/bee/1.png: not a readable image"),
    "no class": (lambda f: [(f / "val" / name).rename(f / name) for name in NAMES], "val: holds no class"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), FOLDER_REFUSALS.values(), ids=FOLDER_REFUSALS)
def test_imagefolder_refusals(folders, change, sentence):
    change(folders)
    with pytest.raises(ConvsmithError, match=sentence):
        load_data(f"imagefolder:{folders}")


def test_a_wide_image_is_cut_to_the_aspect_and_scaled(tmp_path):
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = np.kron(pixels(1, (4, 4)), np.ones((2, 2, 1), np.uint8))  # the middle, in 2x2 squares
    for half in ("train", "test"):
        (tmp_path / half / "a").mkdir(parents=True)
        Image.fromarray(wide).save(tmp_path / half / "a" / "0.png")
    whole = load_data(f"imagefolder:{tmp_path}", input=(3, 8, 8)).test.images[0]
    assert np.array_equal(whole.numpy(), wide[:, 4:12].transpose(2, 0, 1))
    half = load_data(f"imagefolder:{tmp_path}", input=(3, 4, 4)).test.images[0].numpy()
    grey = load_data(f"imagefolder:{tmp_path}", input=(1, 8, 8))
    assert np.corrcoef(half.ravel(), pixels(1, (4, 4)).transpose(2, 0, 1).ravel())[0, 1] > 0.9
    wanted = np.asarray(Image.fromarray(wide[:, 4:12]).convert("L"))
    assert np.array_equal(grey.test.images[0, 0].numpy(), wanted)
    assert (grey.mean, grey.std) == ((0.449,), (0.226,))


def test_grey_images_are_given_in_the_channels_asked_for(tmp_path):
    for half in ("train", "test"):
        write_parquet(tmp_path / f"{half}-0.parquet", [png(pixels(1, channels=1))], [0])
    own, three = load_data(str(tmp_path)), load_data(str(tmp_path), input=(3, 8, 8))
    assert own.shape == (1, 8, 8)
    assert torch.equal(three.test.images, own.test.images.expand(1, 3, 8, 8))


# Streams.


def test_a_streamed_test_image_is_its_central_part(folders):
    data = load_data(f"imagefolder:{folders}", input=(3, 14, 14), limit=0, workers=0, mean=(0.0,) * 3, std=(1.0,) * 3)
    images, _ = next(data.test.batches(1))  # 7/8 of 16 pixels: nothing to scale
    assert np.array_equal((images[0] * 255).round().numpy(), pixels(0, (16, 16))[1:15, 1:15].transpose(2, 0, 1))


def test_each_image_of_a_pass_has_a_crop_of_its_own(folders):
    for file in (folders / "train").rglob("*.png"):
        Image.fromarray(pixels(0, (16, 16))).save(file)
    split = load_data(f"imagefolder:{folders}", input=(3, 8, 8), limit=0, workers=0).train
    images, _ = taken(split.shuffled(4, seed=0, epoch=0, augment=Augment(flip=False)))
    assert len({image.numpy().tobytes() for image in images}) > 9


@forks
def test_workers_change_nothing(folders):
    alone, helped = (load_data(f"imagefolder:{folders}", input=(3, 8, 8), limit=0, workers=n).train for n in (0, 2))
    passes = (taken(split.shuffled(4, seed=0, epoch=0, augment=Augment())) for split in (alone, helped))
    assert all(torch.equal(a, b) for a, b in zip(*passes, strict=True))


@forks
@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_names_the_corrupt_file_in_one_sentence(folders, workers):
    (folders / "val/bee/1.png").write_bytes(b"GIF")
    data = load_data(f"imagefolder:{folders}", input=(3, 8, 8), limit=0, workers=workers)
    with pytest.raises(ConvsmithError, match=r"^\S*val/bee/1.png: not a readable image .*; replace or remove it.$"):
        taken(data.test.batches(4))


# timm's factory.


def test_timms_torchvision_folders_are_ours(folders):
    data, ours = load_data(f"torch/image_folder:{folders}"), load_data(f"imagefolder:{folders}")
    assert (data.classes, data.shape) == (ours.classes, ours.shape)
    assert torch.equal(data.test.images, ours.test.images)


class Rows:
    """A reader in timm's sense over the columns of a Hugging Face set."""

    class_to_idx = {"bee": 1, "ant": 0}  # noqa: RUF012

    def __init__(self, columns):
        self.dataset = SimpleNamespace(column_names=columns)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return io.BytesIO(png(pixels(index))), index


COLUMNS = {
    "as timm expects": (["image", "label"], {"input_key": "image", "target_key": "label"}),
    "as CIFAR-10": (["img", "label"], {"input_key": "img", "target_key": "label"}),
    "as CIFAR-100": (["img", "fine_label", "coarse_label"], {"input_key": "img", "target_key": "fine_label"}),
}


@pytest.mark.parametrize(("columns", "settings"), COLUMNS.values(), ids=COLUMNS)
def test_hugging_face_sets(monkeypatch, columns, settings):
    from timm.data import dataset_factory

    asked = []

    def create(name, root=None, split="", **settings):
        if split == "validation":
            raise ValueError("Unknown split")
        asked.append((split, settings))
        return SimpleNamespace(reader=Rows(columns))

    monkeypatch.setattr(dataset_factory, "create_dataset", create)
    data = load_data("hfds/rows")
    assert asked[1:] == [("train", settings), ("test", settings)]
    assert (data.classes, data.test.labels.tolist()) == (("ant", "bee"), [0, 1])
    assert np.array_equal(data.test.images[1].numpy(), pixels(1).transpose(2, 0, 1))


class Pages:
    """A reader in timm's sense that gives images one after another; training shows its seed in the first pixel."""

    class_to_idx = {"bee": 1, "ant": 0}  # noqa: RUF012

    def __init__(self, labels, is_training=False, seed=0, **settings):
        self.labels, self.seed, self.epoch = labels, seed * is_training, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.labels)

    def __iter__(self):
        for label in self.labels:
            yield Image.new("RGB", (8, 8), (label, self.seed, self.epoch)), label


@pytest.fixture
def pages(monkeypatch):
    from timm.data import IterableImageDataset, dataset_factory

    labels = {"train": [0, 1, 0, 1, 1], "test": [1, 0, 1]}

    def create(name, root=None, split="", input_img_mode="RGB", **settings):
        if split not in labels:
            raise ValueError(f"no split {split}")
        return IterableImageDataset(root, reader=Pages(labels[split], **settings))

    monkeypatch.setattr(dataset_factory, "create_dataset", create)
    return labels


def test_iterated_sets(pages):
    data = load_data("hfids/pages", input=(3, 8, 8), mean=(0.0,) * 3, std=(1 / 255,) * 3, workers=0)
    assert (data.classes, len(data.train), len(data.test)) == (("ant", "bee"), 5, 3)
    assert taken(data.test.batches(2))[1].tolist() == [1, 0, 1]
    images, labels = taken(data.train.shuffled(4, seed=7, epoch=3, share=(0, 2)))
    assert labels.tolist() == [0, 1, 0, 1]  # two batches of 4 / 2
    assert images[:, :, 0, 0].round().tolist() == [[label, 7, 3] for label in labels.tolist()]


def test_iterated_sets_give_bytes_until_there_are_enough(pages):
    split = load_data("hfids/pages", input=(3, 8, 8), workers=0).train
    drawn = split.drawn(4, seed=7)
    assert (drawn.shape, drawn.dtype) == ((4, 3, 8, 8), torch.uint8)
    assert drawn[:, :, 0, 0].tolist() == [[label, 7, 0] for label in pages["train"][:4]]
    assert len(split.drawn(99, seed=7)) == 5


def test_iterated_sets_refuse_labels_outside(pages):
    pages["test"].append(2)
    with pytest.raises(ConvsmithError, match="label 2 is outside the 2 classes"):
        taken(load_data("hfids/pages", input=(3, 8, 8), workers=0).test.batches(2))


def test_sets_without_names_are_named_by_a_file(pages, monkeypatch, tmp_path):
    monkeypatch.setattr(Pages, "class_to_idx", {})
    with pytest.raises(ConvsmithError, match="tells no class names"):
        load_data(f"wds/pages:{tmp_path}", input=(3, 8, 8), workers=0)
    (tmp_path / "classes.txt").write_text("no\nyes\n")
    assert load_data(f"wds/pages:{tmp_path}", input=(3, 8, 8), workers=0).classes == ("no", "yes")


# References and settings.


REFUSALS = {
    "misspelt": ("digitz", {}, "Unknown data set 'digitz'; did you mean digits?"),
    "misspelt with a path": ("cifar:x", {}, "did you mean cifar10, cifar100?"),
    "digits with a path": ("digits:x", {}, "take no path"),
    "no path": ("cifar10", {}, "write cifar10:PATH"),
    "no such folder": ("cifar100:nowhere", {}, "nowhere: no such folder"),
    "no such bare folder": ("./nowhere", {}, "nowhere: no such folder"),
    "no parquet": ("tests", {}, "write imagefolder:tests"),
    "not CIFAR": ("cifar10:tests", {}, "Dataset not found or corrupted"),
    "timm's, unknown": ("torch/nothing:tests", {}, "Unknown torchvision dataset nothing"),
    "timm's, without its package": ("tfds/mnist", {"input": (3, 8, 8)}, "needs the package"),
    "timm's, iterated without a shape": ("wds/x:tests", {}, "give an input shape"),
    "two channels": ("digits", {"input": (2, 8, 8)}, "1 or 3 channels"),
    "no height": ("digits", {"input": (3, 0, 8)}, "a height and a width"),
    "means of another count": ("digits", {"mean": (0.5,)}, "got 1 means and 3 deviations for 3-channel images"),
    "no deviation": ("digits", {"std": (1.0, 0.0, 1.0)}, "above zero"),
    "too large without a shape": ("digits", {"limit": 0}, "1437 images of 3x32x32 are too many"),
}


@pytest.mark.parametrize(("reference", "settings", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(request, monkeypatch, reference, settings, sentence):
    monkeypatch.chdir(request.config.rootpath)
    with pytest.raises(ConvsmithError, match=sentence) as refusal:
        load_data(reference, **settings)
    assert "\n" not in str(refusal.value)


def test_data_is_a_record():
    data = load_data("digits")
    assert isinstance(data, Data)
    with pytest.raises(AttributeError):
        data.name = "other"
    assert Normalize.of(1, None, None).mean == (0.449,)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no CIFAR-10 folder beside the checkout")
def test_cifar10_beside_the_checkout():
    archive = open_parquet(SHARED)
    assert (len(archive.train), len(archive.test), archive.shape) == (50_000, 10_000, (3, 32, 32))
    assert archive.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert set(Counter(archive.test.labels).values()) == {1000}
    row = pq.ParquetFile(SHARED / "test-00000-of-00001.parquet").read_row_group(0).slice(0, 1).to_pylist()[0]
    image, label = read(archive.test, 0, archive.shape, 10)
    assert label == row["label"]
    wanted = np.asarray(Image.open(io.BytesIO(row["img"]["bytes"]))).transpose(2, 0, 1)
    assert np.array_equal(to_tensor(image).numpy(), wanted)
