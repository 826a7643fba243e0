"""A model reference, such as `vgg16`, `timm:efficientnet_b0` or a folder, to a model, with data that suits it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from convsmith.data import UNLABELLED, Data, load_data
from convsmith.errors import ConvsmithError, DataError, FileError
from convsmith.graph import Graph
from convsmith.graph.plain import told
from convsmith.graph.signature import Shape, Shapes, each_shape
from convsmith.load.consent import KNOWN
from convsmith.load.files import FILES, capture_file
from convsmith.load.folder import load_folder, read_origin
from convsmith.load.records import Loaded, Origin, Wish
from convsmith.load.sources import is_built_in, source_of
from convsmith.load.weights import load_weights
from convsmith.zoo import NETS

WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


def load(reference: str, wish: Wish | None = None, *, weights: Path | None = None, trust: bool = False) -> Loaded:
    """Load a model from a reference, with fresh weights or those of a file.

    Args:
        reference: A name of the zoo (`vgg16`, `zoo:vgg16`), `timm:NAME`, `torchvision:NAME`, `package.module:factory`,
            `path/file.py:factory`, or a folder that convsmith wrote.
        wish: Input shape, classes, depths and statistics, where they differ from its own.
        weights: A file of weights for it, see `load_weights`.
        trust: Whether a folder may name a user's own factory. Following it runs that code, and whoever wrote the
            folder chose it; the zoo, timm, torchvision, and code you have named before, need no trust.

    Returns:
        The module with its origin; `notes` say what was left out of the weights' file.

    Raises:
        ConvsmithError: On an unknown reference, a folder that needs trust, and weights that are missing or do not fit.

    >>> loaded = load("resnet20")
    >>> loaded.name, loaded.origin.input
    ('resnet20', (3, 32, 32))
    """
    wish = wish or Wish()
    loaded = _from_folder(Path(reference), wish, trust) if _is_path(reference) else _from_source(reference, wish)
    if weights is None:
        return loaded
    notes = (*loaded.notes, *load_weights(loaded.model, weights))
    return replace(loaded, origin=replace(loaded.origin, trained=True), notes=notes)


def load_graph(reference: str, wish: Wish | None = None, *, trust: bool = False) -> Graph:
    """The graph of what a reference names, an .onnx or .pt2 file among them, on its own input or the wish's."""
    wish = wish or Wish()
    path = Path(reference)
    if path.suffix.lower() in FILES and not path.is_dir():
        if wish.classes is not None or wish.blocks_per_stage is not None:
            raise ConvsmithError(f"{path}: is a file, whose classes and depths are what they are; leave them out.")
        return capture_file(path.expanduser(), _named(path, wish.input), trust=trust)
    return load(reference, wish, trust=trust).graph()


def _named(path: Path, input: Shapes | None) -> Shape | Mapping[str, Shape] | None:
    """The shapes that a file's inputs are asked for: of the first one, or by their names."""
    if input is None or isinstance(input, Mapping):
        return input
    shape, *others = each_shape(input)
    if others:
        raise ConvsmithError(f"{path}: a file's inputs have names; write --input NAME=C,H,W;NAME=C,H,W.")
    return shape


def load_with_data(
    reference: str, data: str, wish: Wish | None = None, *, weights: Path | None = None, trust: bool = False
) -> tuple[Loaded, Data]:
    """A model and a data set that fit each other.

    A reference is built for the data's shape and classes where the wish leaves them open; a folder's model has its own.
    Images are read with the statistics of the wish, else the model's own, else ImageNet's.
    """
    wish = wish or Wish()
    own = origin_of(reference, wish)
    if own.inputs:
        raise DataError(
            f"{reference}: takes several inputs, and --data gives images alone; from Python cs.decompose and cs.apply "
            "take data= as batches, each a tuple or a dictionary of the inputs."
        )
    images = own.input if _is_path(reference) or wish.input else None
    loaded_data = load_data(data, input=images, mean=own.mean, std=own.std)
    if not _is_path(reference):
        labelled = wish.classes is None and loaded_data.classes != UNLABELLED
        classes = len(loaded_data.classes) if labelled else wish.classes
        wish = replace(wish, input=loaded_data.shape, classes=classes)
    return load(reference, wish, weights=weights, trust=trust), loaded_data


def origin_of(reference: str, wish: Wish) -> Origin:
    """What `load` would build, without building it."""
    if _is_path(reference):
        return _wished(read_origin(_folder(Path(reference))), wish)
    source, name = source_of(reference)
    return source.origin(name, wish)


def _from_source(reference: str, wish: Wish) -> Loaded:
    source, name = source_of(reference)
    origin = source.origin(name, wish)
    model = source.build(name, origin)
    if not is_built_in(reference):
        KNOWN.add(reference)
    return Loaded(model, origin, notes=told(model))


def _from_folder(path: Path, wish: Wish, trust: bool) -> Loaded:
    loaded = load_folder(_folder(path), trust=trust)
    return replace(loaded, origin=_wished(loaded.origin, wish))


def _wished(origin: Origin, wish: Wish) -> Origin:
    """A folder's model is what it is: only the statistics it reads images with can be set anew."""
    for name, field in (("input", "shapes"), ("classes",) * 2, ("blocks_per_stage",) * 2):
        wanted, own = getattr(wish, name), getattr(origin, field)
        if wanted is not None and own is not None and wanted != own:
            raise ConvsmithError(
                f"{name.replace('_', ' ')}: got {wanted}, but the folder's model has {own}; leave it out."
            )
    return replace(origin, mean=wish.mean or origin.mean, std=wish.std or origin.std)


def _is_path(reference: str) -> bool:
    """A folder or file; a name of the zoo is not, even where a folder is called the same."""
    path = Path(reference)
    named = path.suffix.lower() in (*FILES, ".py", *WEIGHTS)
    return reference not in NETS and (path.is_dir() or named or ("/" in reference and ":" not in reference))


def _folder(path: Path) -> Path:
    path = path.expanduser()
    if path.suffix.lower() in FILES and not path.is_dir():
        raise FileError(
            f"{path}: a {path.suffix} file can only be analyzed and measured (`convsmith analyze`, `convsmith bench`); "
            "give the model it was made from."
        )
    if path.suffix.lower() in WEIGHTS and not path.is_dir():
        raise ConvsmithError(
            f"{path}: is a file of weights, which do not tell what net they are of; give the model's name, "
            f"and --weights {path}."
        )
    if path.suffix == ".py" and not path.is_dir():
        raise ConvsmithError(f"{path}: which of its functions makes the model? Give {path}:NAME, such as {path}:make.")
    if not path.is_dir():
        raise FileError(f"{path}: no such folder; give one that convsmith wrote, or a model's name.")
    return path
