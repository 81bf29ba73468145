"""Data sets in VOC layout: what archives, cameras, editors and scripts leave behind."""

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cpn.data.voc import VOC_CLASSES, encode_mask, open_pack
from tests.bad_input.case import Case, Make, both, spec, text_file, voc

PREPARE = "cpn.prepare data"
SIZE = (14, 20)
FIRST = "2007_000032"
"""The first image of list train in the small data set, which shows an aeroplane; its value in the mask is 1."""
IMAGE, MASK = f"JPEGImages/{FIRST}.jpg", f"SegmentationClass/{FIRST}.png"
XML, TRAIN = f"Annotations/{FIRST}.xml", "ImageSets/Segmentation/train.txt"
BOTH_IDS = f"{FIRST}\n2007_000039\n"
ONE_OBJECT = "<annotation><object><name>aeroplane</name></object></annotation>"
PHOTOGRAPH = np.repeat(np.array([[[200, 30, 60]], [[20, 160, 220]]], np.uint8), 7, axis=0).repeat(SIZE[1], axis=1)
"""Red above blue, (14, 20, 3)."""


DEEP = np.zeros(SIZE, np.uint16)
DEEP[:, 4:] = 255 * 256
"""Grey of 16 bits, (14, 20)."""


def bytes_of(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(mask: np.ndarray) -> bytes:
    return encode_mask(mask.astype(np.uint8))


def endless_png() -> bytes:
    """The header of 40,000 by 30,000 pixels, and next to nothing behind it."""
    header = struct.pack(">IIBBBBB", 40000, 30000, 8, 0, 0, 0, 0)
    return png_of((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))


def grey_png(mask: np.ndarray, bits: int) -> bytes:
    """A grey PNG of fewer than 8 bits a value."""
    rows = np.unpackbits(mask[..., None].astype(np.uint8), axis=-1)[..., 8 - bits :].reshape(len(mask), -1)
    lines = np.packbits(rows, axis=1)
    header = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], bits, 0, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))
    return png_of((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))


def deep_png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel with the values (H, W, 3) as they are, which Pillow cannot write."""
    lines = pixels.astype(">u2").reshape(len(pixels), -1)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))
    return png_of((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))


def png_of(*parts: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks."""
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def put(part: str, content: bytes | str) -> Make:
    """Replace one file of the data set."""
    return voc(lambda root: (root / part).write_bytes(content.encode() if isinstance(content, str) else content))


def cut(part: str, kept: float) -> Make:
    def damage(root: Path) -> None:
        whole = (root / part).read_bytes()
        (root / part).write_bytes(whole[: int(len(whole) * kept)])

    return voc(damage)


def turned_round(part: str) -> Make:
    """One byte of the packed pixels of a PNG."""

    def damage(root: Path) -> None:
        data = bytearray((root / part).read_bytes())
        data[data.index(b"IDAT") + 12] ^= 255
        (root / part).write_bytes(data)

    return voc(damage)


def gone(part: str) -> Make:
    return voc(lambda root: (root / part).unlink())


def moved(source: str, target: str) -> Make:
    return voc(lambda root: os.replace(root / source, root / target))


def wrong(name: str, make: Make, *words: str, command: str = PREPARE) -> Case:
    """What cpn.prepare refuses."""
    return Case(f"data: {name}", command, words, make)


def right(name: str, make: Make, check: Make, *words: str, command: str = PREPARE) -> Case:
    """What looks odd and is packed."""
    return Case(f"data: {name}", command, words, make, code=0, check=check)


def commands(name: str, make: Make, *words: str) -> list[Case]:
    """What the sweep and the single run refuse as cpn.prepare does, before anything else is made."""
    run = "platform.train --set preset=scenes --set network.weights=null --set data.root=data"
    sweep = "platform.sweep s.yaml --set data.root=data"
    return [wrong(f"{name}, sweep", make, *words, command=sweep), wrong(f"{name}, train", make, *words, command=run)]


def packed(test: Callable[[np.ndarray, np.ndarray], None]) -> Make:
    """Test picture and mask of the first image as they were packed."""

    def check(place: Path) -> None:
        split = open_pack(place / "data").split("train")
        mask = split.mask(split.ids.index(FIRST))
        assert mask is not None
        test(split.image(split.ids.index(FIRST)), mask)

    return check


def ids(place: Path) -> None:
    assert open_pack(place / "data").split("train").ids == [FIRST, "2007_000039"]


def as_stored(image: np.ndarray, mask: np.ndarray) -> None:
    """Neither is turned: masks are drawn on the stored pixels."""
    assert image.shape == (*SIZE, 3) and mask.shape == SIZE
    assert image[2, 10, 0] > 150 > image[2, 10, 2] and image[12, 10, 2] > 150 > image[12, 10, 0]


def rgb(image: np.ndarray, mask: np.ndarray) -> None:
    assert np.abs(image.astype(int) - PHOTOGRAPH).max() < 12


def grey(image: np.ndarray, mask: np.ndarray) -> None:
    assert (image == image[..., :1]).all() and image.shape == (*SIZE, 3)


def same_classes(image: np.ndarray, mask: np.ndarray) -> None:
    assert set(np.unique(mask)) == {0, 1}


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # 90 degrees
    return bytes_of(Image.fromarray(PHOTOGRAPH), "JPEG", quality=95, exif=exif)


def broken_exif() -> bytes:
    """A whole JPEG whose EXIF points outside of itself."""
    data = bytes_of(Image.fromarray(PHOTOGRAPH), "JPEG", quality=95, subsampling=0)
    return data[:2] + b"\xff\xe1\x00\x10Exif\0\0II*\0\xff\xff\xff\xff" + data[2:]


def values(at: int, dtype: type = np.uint8) -> np.ndarray:
    mask = np.zeros(SIZE, dtype)
    mask[3, 4] = at
    return mask


def bomb(levels: int = 12) -> str:
    entities = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10 if level else "lol"}">' for level in range(levels))
    return f"<!DOCTYPE annotation [{entities}]><annotation><object><name>&e{levels - 1};</name></object></annotation>"


def as_png_of(picture: bytes) -> Make:
    """The first image as PNG, with no JPEG beside it."""

    def damage(root: Path) -> None:
        (root / IMAGE).unlink()
        (root / IMAGE).with_suffix(".png").write_bytes(picture)

    return voc(damage)


LAYOUT = [
    *commands("no folder", both(voc(), lambda place: shutil.rmtree(place / "data")), "no such folder", "VOCtrainval"),
    *commands("an empty folder", both(spec(), lambda place: (place / "data").mkdir()), "is empty", "VOCtrainval"),
    *commands(
        "another layout", voc(lambda root: shutil.rmtree(root / "JPEGImages")),
        "is not in VOC 2012 layout (no folder JPEGImages)",
    ),
    *commands("no list val", gone("ImageSets/Segmentation/val.txt"), "val.txt is missing"),
    wrong("the folder above", both(voc(), lambda p: os.renames(p / "data", p / "x/VOC2012")), "the folder above",
          "give x/VOC2012", command="cpn.prepare x"),
    wrong("a file for a folder", text_file("", "data"), "data: no such folder"),
    wrong("an archive for a folder", text_file(b"\x1f\x8b", "VOC.tar"), "VOC.tar: no such folder", "unpack it",
          command="cpn.prepare VOC.tar"),
    wrong("no trainaug and no SBD", voc(sbd=False), "trainaug.txt is missing", "--lists train val"),
    wrong("a list that is not there", voc(), "minival.txt is missing", "choose with --lists",
          command=f"{PREPARE} --lists minival"),
    wrong("a list outside", voc(), "--lists ../../etc/passwd: a list is named by the file's stem",
          command=f"{PREPARE} --lists ../../etc/passwd"),
    wrong("a list by its path", voc(), "--lists /etc/passwd: a list is", command=f"{PREPARE} --lists /etc/passwd"),
]  # fmt: skip

PICTURES = [
    *commands("a JPEG that is cut off", cut(IMAGE, 0.5), IMAGE, "is no whole JPEG or PNG picture", "get the"),
    wrong("a JPEG without its last bytes", cut(IMAGE, 0.97), IMAGE, "is no whole JPEG", "get the file again"),
    wrong("a JPEG of zero bytes", put(IMAGE, b""), IMAGE, "has no bytes: get the file again or delete", "line 1"),
    wrong("a JPEG of zeros", put(IMAGE, bytes(500)), IMAGE, "is no whole JPEG or PNG", "get the file again"),
    wrong("a web page for a JPEG", put(IMAGE, "<html>404</html>"), IMAGE, "is no whole JPEG or PNG"),
    wrong("a GIF called .jpg", put(IMAGE, bytes_of(Image.fromarray(PHOTOGRAPH), "GIF")), IMAGE, "is no whole JPEG"),
    wrong("a HEIC called .jpg", put(IMAGE, b"\0\0\0\x18ftypheic" + bytes(40)), IMAGE, "is no whole JPEG"),
    wrong("a pointer of Git LFS", put(IMAGE, "version https://git-lfs.github.com/spec/v1\n"), IMAGE, "is no whole"),
    wrong("a folder called .jpg", voc(lambda root: ((root / IMAGE).unlink(), (root / IMAGE).mkdir())), IMAGE,
          "cannot be read"),
    wrong("a link to nowhere", voc(lambda root: ((root / IMAGE).unlink(), (root / IMAGE).symlink_to("gone.jpg"))),
          IMAGE, "is a link to gone.jpg, which is not there"),
    wrong("a PNG of a billion pixels", as_png_of(endless_png()), f"{FIRST}.png",
          "is no whole JPEG or PNG picture", "pixels"),
    wrong("a pipe for a picture", voc(lambda root: ((root / IMAGE).unlink(), os.mkfifo(root / IMAGE))), "is a pipe"),
    wrong("zeros without end for a picture", voc(lambda root: ((root / IMAGE).unlink(), (root / IMAGE).symlink_to(
          "/dev/zero"))), IMAGE, "is a device"),
    wrong("12 bits in a PNG of 16", as_png_of(bytes_of(Image.fromarray(DEEP // 16), "PNG")), f"{FIRST}.png",
          "16 bits a channel and no value above 4080 of 65535", "read as black", "save it with 8 bits"),
    wrong("8 bits of colour in a PNG of 16", as_png_of(deep_png(PHOTOGRAPH)), f"{FIRST}.png", "no value above 220"),
    right("all of 16 bits", as_png_of(bytes_of(Image.fromarray(DEEP), "PNG")), ids),
    right("black in 16 bits", as_png_of(bytes_of(Image.fromarray(DEEP * 0), "PNG")), ids),
    wrong("a WebP called .jpg", put(IMAGE, bytes_of(Image.fromarray(PHOTOGRAPH), "WEBP")), IMAGE,
          "WebP by its content", "convert it to JPEG or PNG"),
    wrong("two pictures of one id", voc(lambda root: (root / IMAGE).with_suffix(".png").write_bytes(b"x")),
          f"{FIRST}.jpg and {FIRST}.png: one id, so delete one"),
    *commands("a picture that is not there", voc(lambda root: (root / TRAIN).write_text(f"{BOTH_IDS}nowhere\n")),
              "train.txt line 3", "there is no JPEGImages/nowhere.jpg", "add it or delete the line"),
    right("a CMYK JPEG", put(IMAGE, bytes_of(Image.fromarray(PHOTOGRAPH).convert("CMYK"), "JPEG", quality=95)),
          packed(rgb)),
    right("a photograph with a turn in its EXIF", put(IMAGE, turned()), packed(as_stored)),
    Case("data: EXIF that is cut off", PREPARE, (), put(IMAGE, broken_exif()), code=0, check=packed(rgb), process=True),
    right("a grey JPEG", put(IMAGE, bytes_of(Image.fromarray(PHOTOGRAPH).convert("L"), "JPEG")), packed(grey)),
    right("a PNG of 16 bit", as_png_of(bytes_of(Image.fromarray(values(40000, np.uint16)), "PNG")),
          packed(lambda image, mask: np.testing.assert_array_equal(image[3, 4], [156, 156, 156]))),
    right("a PNG with transparency", as_png_of(bytes_of(Image.fromarray(PHOTOGRAPH).convert("RGBA"), "PNG")),
          packed(lambda image, mask: np.testing.assert_array_equal(image, PHOTOGRAPH))),
    right("a progressive JPEG", put(IMAGE, bytes_of(Image.fromarray(PHOTOGRAPH), "JPEG", quality=95,
                                                    subsampling=0, progressive=True)),
          packed(rgb)),
    right("capitals in the ending", moved(IMAGE, f"JPEGImages/{FIRST}.JPG"), ids),
    right("a copy by a Mac beside it", put(f"JPEGImages/._{FIRST}.jpg", b"\0\5\x16\7"), ids),
]  # fmt: skip

MASKS = [
    *commands("no mask", gone(MASK), "train.txt line 1", f"there is no {MASK}", "this list is scored", "delete"),
    *commands("no mask in val", gone("SegmentationClass/2007_000033.png"), "val.txt line 1", "this list is scored"),
    *commands("a mask of another size", put(MASK, png(np.zeros((10, 12)))), MASK, "is 12x10, its picture 20x14 pixels"),
    wrong("a mask on its side", put(MASK, png(np.zeros(SIZE[::-1]))), MASK, "is 14x20, its picture 20x14", "correct"),
    wrong("a mask with an unknown index", put(MASK, png(values(21))), MASK, "holds 21 at row 3, column 4", "1 to 20"),
    wrong("a mask of grey levels", put(MASK, bytes_of(Image.fromarray(values(128)), "PNG")), MASK, "holds 128 at"),
    wrong("a mask in colours", put(MASK, bytes_of(Image.fromarray(PHOTOGRAPH), "PNG")), MASK, "is of mode RGB",
          "write each colour's index", "save it as grey PNG (L)"),
    wrong("a mask in colours with transparency", put(MASK, bytes_of(Image.new("RGBA", SIZE[::-1]), "PNG")), MASK,
          "is of mode RGBA", "write each colour's index"),
    wrong("a mask of 16 bit", put(MASK, bytes_of(Image.fromarray(values(1, np.uint16)), "PNG")), MASK,
          "is of mode I;16", "save it as grey PNG"),
    wrong("a mask of one bit", put(MASK, bytes_of(Image.new("1", SIZE[::-1]), "PNG")), MASK, "is of mode 1:"),
    wrong("a mask of four bits without palette", put(MASK, grey_png(values(1), 4)), MASK, "a grey PNG of 4 bits",
          "1 is read as 17", "save it as grey PNG"),
    wrong("a mask of two bits without palette", put(MASK, grey_png(values(1), 2)), MASK, "of 2 bits", "read as 85"),
    wrong("a mask of grey levels with transparency", put(MASK, bytes_of(Image.new("LA", SIZE[::-1]), "PNG")), MASK,
          "is of mode LA", "save it as grey PNG"),
    wrong("a mask as JPEG", put(MASK, bytes_of(Image.new("L", SIZE[::-1]), "JPEG")), MASK, "is no whole PNG"),
    wrong("a mask that is cut off", cut(MASK, 0.5), MASK, "is no whole PNG", "correct it or delete"),
    wrong("a pipe for a mask", voc(lambda root: ((root / MASK).unlink(), os.mkfifo(root / MASK))), MASK, "is a pipe"),
    wrong("a mask of zero bytes", put(MASK, b""), MASK, "is no whole PNG", "correct it or delete"),
    wrong("a mask with one byte turned round", turned_round(MASK), MASK, "is no whole PNG", "correct it or delete"),
    right("a grey mask of indices", put(MASK, bytes_of(Image.fromarray(values(1)), "PNG")), packed(same_classes)),
    right("a mask of one bit with a palette",
          put(MASK, bytes_of(Image.fromarray(values(1)).convert("P"), "PNG", bits=1)), packed(same_classes)),
]  # fmt: skip

LISTS = [
    wrong("a list with an id twice", put(TRAIN, f"{FIRST}\n\n{FIRST}\n"), f"train.txt line 3: {FIRST} is already on",
          "delete one"),
    wrong("an id twice, once with its ending", put(TRAIN, f"{FIRST}\n{FIRST}.jpg\n"), "train.txt line 2", "already on"),
    wrong("a list of blanks", put(TRAIN, "\n  \n\t\n"), "train.txt is empty: write one image id per line"),
    wrong("a list of zero bytes", put(TRAIN, ""), "train.txt is empty"),
    wrong("a list in UTF-16", put(TRAIN, BOTH_IDS.encode("utf-16")), "train.txt is not UTF-8 text: save it as UTF-8"),
    wrong("a list of classification", put(TRAIN, f"{FIRST} -1\n"), "train.txt line 1", "neither an image id nor"),
    wrong("a list with commas", put(TRAIN, f"{FIRST},2007_000039\n"), "train.txt line 1: there is no JPEGImages/"),
    wrong("a list as JSON", put(TRAIN, f'["{FIRST}"]\n'), "train.txt line 1: there is no JPEGImages/", "delete"),
    wrong("a list that leaves the folder", put(TRAIN, "../../etc/passwd\n"), "train.txt line 1", "leaves the folder"),
    wrong("a list that leaves it backwards", put(TRAIN, "..\\..\\x\n"), "train.txt line 1", "leaves the folder"),
    wrong("a list with an absolute path", put(TRAIN, "/etc/passwd\n"), "train.txt line 1", "JPEGImages/passwd.jpg"),
    wrong("a list with pairs that differ", put(TRAIN, f"/{IMAGE} /SegmentationClass/2007_000039.png\n"),
          "train.txt line 1", "names two different pictures"),
    wrong("a list with a zero byte", put(TRAIN, f"{FIRST}\0\n"), "train.txt line 1: there is no", "\\x00.jpg"),
    wrong("a list with terminal codes", put(TRAIN, "\x1b[2J\n"), "train.txt line 1: there is no", "\\x1b[2J.jpg"),
    wrong("a pipe for a list", voc(lambda root: ((root / TRAIN).unlink(), os.mkfifo(root / TRAIN))), "txt is a pipe"),
    wrong("a list of gigabytes", voc(lambda root: os.truncate(root / TRAIN, 10**10)), "train.txt is larger than 64 MB"),
    wrong("a folder for a list", voc(lambda root: ((root / TRAIN).unlink(), (root / TRAIN).mkdir())),
          "train.txt is a folder"),
    right("a list with CRLF", put(TRAIN, BOTH_IDS.replace("\n", "\r\n")), ids),
    right("a list with a byte order mark", put(TRAIN, "\ufeff" + BOTH_IDS), ids),
    right("a list with blank lines and spaces", put(TRAIN, f"\n  {FIRST}  \n\n\t2007_000039\n\n"), ids),
    right("a list without its last line break", put(TRAIN, BOTH_IDS[:-1]), ids),
    right("a list of pairs", put(TRAIN, "".join(f"/JPEGImages/{i}.jpg /SegmentationClass/{i}.png\n"
                                                for i in BOTH_IDS.split())), ids),
]  # fmt: skip

LABELS = [
    wrong("a class that is unknown", put(XML, ONE_OBJECT.replace("aeroplane", "airplane")), XML,
          "object 1 is of unknown class airplane: did you mean aeroplane?"),
    wrong("a class in capitals", put(XML, ONE_OBJECT.replace("aeroplane", "Aeroplane")), XML, "did you mean aero"),
    wrong("an object without name", put(XML, "<annotation><object/></annotation>"), XML, "object 1 has no name: write"),
    wrong("no object", put(XML, "<annotation/>"), XML, "holds no object", "a training picture needs a class: delete"),
    wrong("XML that is cut off", cut(XML, 0.5), XML, "is not whole XML", "get the file again"),
    wrong("XML of zero bytes", put(XML, ""), XML, "is not whole XML (no element found", "get the file again"),
    wrong("XML of two roots", put(XML, "<annotation/><annotation/>"), XML, "is not whole XML (junk after"),
    wrong("XML of an unknown encoding", put(XML, '<?xml version="1.0" encoding="klingon"?><annotation/>'), XML,
          "is not whole XML"),
    wrong("XML that multiplies", put(XML, bomb()), XML, "defines entities", "take its DOCTYPE away"),
    wrong("XML that multiplies a little", put(XML, bomb(3)), XML, "defines entities", "take its DOCTYPE away"),
    wrong("XML that reads other files", put(XML, '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
          "<annotation><object><name>&x;</name></object></annotation>"), XML, "defines entities"),
    wrong("XML that multiplies in UTF-16", put(XML, bomb().encode("utf-16")), XML, "defines entities"),
    wrong("XML of gigabytes", voc(lambda root: os.truncate(root / XML, 10**10)), XML, "is larger than 4 MB"),
    wrong("a pipe for XML", voc(lambda root: ((root / XML).unlink(), os.mkfifo(root / XML))), XML, "is a pipe"),
    wrong("a pipe for the classes", voc(lambda root: os.mkfifo(root / "classes.txt")), "classes.txt is a pipe"),
    wrong("JSON for XML", put(XML, '{"object": []}'), XML, "is not whole XML"),
    wrong("no XML", gone(XML), "train.txt line 1", f"there is no {XML}: add it or delete the line"),
    wrong("no classes", put("classes.txt", ""), "classes.txt is empty: write one foreground class per line"),
    wrong("a class twice", put("classes.txt", "dog\ncat\ndog\n"), "classes.txt: class dog is there twice: delete one"),
    wrong("background as a class", put("classes.txt", "background\ndog\n"), "classes.txt: background is", "delete"),
    wrong("a list of classes by another name", put("labels.txt", "cat\ndog\n"), "classes.txt is missing, but labels"),
    wrong("classes that differ in capitals", put("classes.txt", "dog\nDog\n"), "dog and Dog are one name but for"),
    wrong("255 classes", put("classes.txt", "".join(f"c{i}\n" for i in range(255))), "has 255 classes", "at most 254"),
    wrong("a class that leaves the folder", put("classes.txt", "../../x\n"), "classes.txt", "../../x", "letters"),
    wrong("a class with a slash", put("classes.txt", "dog/cat\n"), "classes.txt", "dog/cat", "letters"),
    wrong("a class with terminal codes", put("classes.txt", "\x1b[2J\n"), "classes.txt", "\\x1b[2J", "letters"),
    wrong("classes in UTF-16", put("classes.txt", "dog\n".encode("utf-16")), "classes.txt is not UTF-8", "save it"),
    right("XML with a byte order mark and CRLF", put(XML, b"\xef\xbb\xbf" + ONE_OBJECT.encode() + b"\r\n"), ids),
    right("XML in Latin-1", put(XML, '<?xml version="1.0" encoding="latin-1"?><!-- é -->'.encode("latin-1")
                                + ONE_OBJECT.encode()), ids),
    right("classes with CRLF and a byte order mark", put("classes.txt", "\ufeff" + "\r\n".join(VOC_CLASSES)), ids),
]  # fmt: skip


CASES = [*LAYOUT, *PICTURES, *MASKS, *LISTS, *LABELS]
