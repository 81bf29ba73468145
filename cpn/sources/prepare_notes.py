"""Hold two sources of one fact against each other: masks and annotations, lists and lists, pictures and their tags.

An error where nothing could be scored by the masks or most of them contradict the annotations; else lines with counts
and examples, which `cpn.prepare` keeps with the packed lists and says after each.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from cpn.core.errors import InputError
from cpn.data.voc import IGNORE
from cpn.sources.image_ids import OTHER_PICTURES, PICTURES
from cpn.sources.voc_folder import Checked
from cpn.sources.voc_lists import is_for_training

MUCH_LARGER = 8
"""How many times the pixels of the median image count as much larger: about three times the sides."""
EXAMPLES = 3


def list_notes(name: str, rows: Sequence[Checked], classes: Sequence[str], scored: bool) -> list[str]:
    """Return lines about one list: do its masks and annotations agree, and what is missing in both.

    Raises InputError, naming the first mask, where a scored list has masks and none of them holds a class, or where
    more than half of them contradict their annotations.
    """
    masked = [row for row in rows if row.mask_classes is not None]
    compared = [row for row in masked if row.entry.annotation is not None]
    other = [row for row in compared if set(row.mask_classes or ()) - set(row.classes or ())]
    empty = [row for row in compared if row.classes and not row.mask_classes]
    lacking = [row for row in compared if row not in other and row not in empty and row.mask_classes != row.classes]
    if scored and masked and not any(row.mask_classes for row in masked):
        raise InputError(_nothing_scored(name, masked, classes))
    against = [*other, *(row for row in empty if not row.ignored)]
    if 2 * len(against) > len(compared):
        raise InputError(_most_disagree(name, against, len(compared), classes))
    lines = []
    if compared:
        agree = len(compared) - len(other) - len(empty) - len(lacking)
        lines.append(f"{name}: masks and annotations name the same classes in {agree} of {len(compared)} images")
    if other:
        lines.append(
            f"warning: {name}: {len(other)} of {len(compared)} masks hold a class that their annotation does not name "
            f"({_examples(other, classes)})"
        )
    if empty:
        lines.append(
            f"warning: {name}: {len(empty)} of {len(compared)} masks hold no object though their annotation names one "
            f"({_examples(empty, classes)})"
        )
    lines += _other_images(name, rows)
    if lacking:
        lines.append(
            f"note: {name}: {len(lacking)} of {len(compared)} masks lack a class that their annotation names "
            f"({_examples(lacking, classes)})"
        )
    if ignored := [row for row in masked if row.ignored == 1]:
        lines.append(
            f"warning: {name}: {len(ignored)} of {len(masked)} masks are ignore ({IGNORE}) all over ({_names(ignored)})"
        )
    if odd := [row for row in masked if row.palette is not None]:
        lines.append(
            f"note: {name}: {len(odd)} of {len(masked)} masks have a palette that is neither VOC's nor a grey ramp ("
            f"such as {odd[0].entry.name}: {odd[0].palette}): index 1 is the first class whatever its colour"
        )
    return lines + _absent(name, rows, masked, classes, scored)


def _other_images(name: str, rows: Sequence[Checked]) -> list[str]:
    """Return lines about annotations that name another file, or another size, than their image has."""
    lines = []
    annotated = sum(row.entry.annotation is not None for row in rows)
    if renamed := [row for row in rows if row.annotated_file is not None]:
        examples = "; ".join(f"{row.entry.name}: {row.annotated_file}" for row in renamed[:EXAMPLES])
        lines.append(
            f"warning: {name}: {len(renamed)} of {annotated} annotations name another file than their image "
            f"({examples}): look whether they belong to it"
        )
    if resized := [row for row in rows if row.annotated_size is not None]:
        examples = "; ".join(
            f"{row.entry.name}: {row.annotated_size[1]}x{row.annotated_size[0]}, image {row.shape[1]}x{row.shape[0]}"
            for row in resized[:EXAMPLES]
            if row.annotated_size is not None
        )
        lines.append(
            f"warning: {name}: {len(resized)} of {annotated} annotations give another size than their image has "
            f"({examples}): look whether they belong to it"
        )
    return lines


def pack_notes(checked: Mapping[str, Sequence[Checked]]) -> list[str]:
    """Return lines about all lists together: EXIF, sizes, and the same picture under two names."""
    rows = {row.entry.image: row for part in checked.values() for row in part}
    lines = []
    if turned := [row for row in rows.values() if row.turned]:
        lines.append(
            f"note: {len(turned)} images have an EXIF orientation ({_names(turned)}): they are used as they are stored "
            "and not turned, so masks have to be drawn on the stored pixels"
        )
    usual = median(row.shape[0] * row.shape[1] for row in rows.values())
    if large := [row for row in rows.values() if row.shape[0] * row.shape[1] > MUCH_LARGER * usual]:
        worst = max(large, key=lambda row: row.shape[0] * row.shape[1])
        lines.append(
            f"warning: {len(large)} of {len(rows)} images have more than {MUCH_LARGER} times the pixels of the median "
            f"({usual / 1e6:.2g} megapixels), the largest is {worst.entry.name} of {worst.shape[1]}x{worst.shape[0]}: "
            "CAM and scoring work at full size, and their memory grows with it: set cam.max_pixels and "
            "deeplab.max_pixels, above which a view is shown smaller, or scale it down, with its mask"
        )
    return lines + _twice(checked)


def jpeg_notes(damaged: Mapping[Path, str], checked: Mapping[str, Sequence[Checked]]) -> list[str]:
    """Return lines about JPEG data that are damaged: the path of each such image, and the decoder's words."""
    images = {row.entry.image.absolute(): row.entry.name for part in checked.values() for row in part}
    examples = "; ".join(f"{images[path]}: {words}" for path, words in list(damaged.items())[:EXAMPLES])
    if not damaged:
        return []
    return [
        f"warning: {len(damaged)} of {len(images)} images decode with a warning, so their JPEG data are damaged "
        f"({examples}): look at them, and get them again where pixels are wrong"
    ]


def _twice(checked: Mapping[str, Sequence[Checked]]) -> list[str]:
    """Say which pictures are there under two names, worst where one of them is evaluated and the other trained on.

    Pixels are compared: a picture that was saved anew, as PNG or without its tags, is the same.
    """
    places: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for name, rows in checked.items():
        for row in rows:
            places[row.pixels].setdefault(row.entry.name, []).append(name)
    leaks, twins = [], []
    for names in (names for names in places.values() if len(names) > 1):
        trained = [(i, name) for i, lists in names.items() for name in lists if is_for_training(name)]
        tested = [(i, name) for i, lists in names.items() for name in lists if not is_for_training(name)]
        pair = next(((a, b) for a in tested for b in trained if a[0] != b[0]), None)
        if pair is not None:
            leaks.append(f"{pair[0][0]} of {pair[0][1]} is {pair[1][0]} of {pair[1][1]}")
        else:
            twins.append(" is ".join(list(names)[:2]))
    lines = []
    if leaks:
        lines.append(
            f"warning: {len(leaks)} images that are evaluated are trained on under another name "
            f"({'; '.join(leaks[:EXAMPLES])})"
        )
    if twins:
        lines.append(f"note: {len(twins)} images are there under two names ({'; '.join(twins[:EXAMPLES])})")
    return lines


def _absent(
    name: str, rows: Sequence[Checked], masked: Sequence[Checked], classes: Sequence[str], scored: bool
) -> list[str]:
    """Classes of which nothing can be scored or learned."""
    by_mask = {at for row in masked for at in row.mask_classes or ()}
    by_label = {at for row in rows for at in row.classes or ()}
    if scored and masked and (never := [c for at, c in enumerate(classes) if at not in by_mask]):
        return [f"note: {name}: {_some(never)} in no mask: each counts 0 in this list's mIoU"]
    labelled = rows[0].classes is not None
    if labelled and (never := [c for at, c in enumerate(classes) if at not in by_label]):
        return [f"note: {name}: {_some(never)} in no image"]
    return []


def _nothing_scored(name: str, masked: Sequence[Checked], classes: Sequence[str]) -> str:
    first = masked[0].entry.mask
    if any(row.ignored for row in masked):
        cure = (
            f"{IGNORE} means ignore: write the value of its class ({_values(classes)}) where a mask of white objects "
            f"has {IGNORE}"
        )
    else:
        cure = f"draw the objects in the value of their class ({_values(classes)})"
    return (
        f"{first}: none of the {len(masked)} masks of list {name} holds a class, so nothing can be scored: {cure}, or "
        "take the masks away and search by image-level labels (objective=mask_free)"
    )


def _most_disagree(name: str, against: Sequence[Checked], count: int, classes: Sequence[str]) -> str:
    first = against[0].entry.mask
    meant = Counter(
        (row.mask_classes[0], row.classes[0])
        for row in against
        if row.mask_classes and row.classes and len(row.mask_classes) == len(row.classes) == 1
    )
    cure = (
        "a mask's values are line numbers of classes.txt: correct its order, or the masks' values (a conversion of "
        "colours to a palette numbers them by how often they occur)"
    )
    if meant:
        (value, label), _ = meant.most_common(1)[0]
        cure = f"value {value + 1} is {classes[value]} by classes.txt and {classes[label]} by the annotations: " + cure
    elif not any(row.mask_classes for row in against):
        cure = f"draw the objects in the value of their class ({_values(classes)}), or take the masks away"
    return (
        f"{first}: {len(against)} of {count} masks of list {name} contradict their annotations "
        f"({_examples(against, classes)}): {cure}"
    )


def folder_notes(annotations: Sequence[str], masks: Sequence[str], used: int) -> list[str]:
    """Return lines about files that are there and not read.

    `annotations` and `masks` name what lies in the two folders, `used` is how many masks the lists have.
    """
    lines = []
    if annotations and not any(name.endswith(".xml") for name in annotations):
        lines.append(
            f"warning: Annotations has no .xml, only such as {annotations[0]}, which is not read: the labels are those "
            "of the masks"
        )
    pictures = [name for name in masks if name.lower().endswith((*PICTURES, *OTHER_PICTURES))]
    if pictures and not used:
        lines.append(
            f"warning: SegmentationClass has {len(pictures)} pictures, such as {pictures[0]}, and none is named ID.png "
            "after an image of the lists: none is used"
        )
    return lines


def _examples(rows: Sequence[Checked], classes: Sequence[str]) -> str:
    def words(indices: Sequence[int] | None) -> str:
        return " and ".join(classes[at] for at in indices or ()) or "nothing"

    return "; ".join(
        f"{row.entry.name}: annotation {words(row.classes)}, mask {words(row.mask_classes)}" for row in rows[:EXAMPLES]
    )


def _names(rows: Sequence[Checked]) -> str:
    return "such as " + ", ".join(row.entry.name for row in rows[:EXAMPLES])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return f"{len(names)} class{'es' if len(names) > 1 else ''} ({', '.join(names[:EXAMPLES])}{more})"


def _values(classes: Sequence[str]) -> str:
    shown = ", ".join(f"{at} {name}" for at, name in enumerate(classes[:2], start=1))
    return shown + (", ..." if len(classes) > 2 else "")
