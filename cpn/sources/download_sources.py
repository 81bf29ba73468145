"""Where the published data sets and weights are had, what they hold, and how far each file can be checked.

Each address and each digest names who states it, and was read there. A size is what servers answered, and a file
without a digest is taken as it comes: neither is enforced, and the command says so. No file was downloaded when the
table was written.
"""

from dataclasses import dataclass
from typing import Literal

Unpacked = Literal["tar", "zip"]


@dataclass(frozen=True)
class Archive:
    """One file to download."""

    file: str
    """Its name at the publisher's, kept as it is."""
    address: str
    """Where to get it; `--mirror` replaces all but `file`."""
    address_from: str
    """Who states the address."""
    size: int | None
    """Bytes, as known from servers' answers; it is shown and reserved, never enforced."""
    md5: str | None = None
    """MD5 of the whole file, enforced; None where no publisher or library names one."""
    sha256_start: str | None = None
    """First hexadecimal digits of its SHA-256, enforced."""
    digest_from: str = ""
    """Who states the digest."""
    unpack: Unpacked | None = None
    """How it is unpacked; None: it is used as it is."""
    holds: str = ""
    """Folder in the archive that is kept."""
    to: str = ""
    """Where that folder, or the file, ends below --to."""


@dataclass(frozen=True)
class Source:
    """A data set, or weights."""

    what: str
    """In a few words."""
    licence: str
    """Terms of use, and where they stand."""
    archives: tuple[Archive, ...] = ()
    """What is downloaded; empty where no direct address is known."""
    page: str = ""
    """Where a person gets it, for what has no direct address, and who links that page."""
    by_hand: str = ""
    """File to put into --to then."""
    by_hand_md5: str | None = None
    """Its MD5, enforced; None where none is published."""
    digest_from: str = ""
    """Who states that."""
    method: Literal["", "CPN", "SEAM"] = ""
    """Whose whole released network the file has to be."""
    into: str = ""
    """The source whose folder it goes into; that one comes first."""
    next: tuple[str, ...] = ()
    """Commands to type afterwards, with {to} for the folder."""


_VOC = "torchvision, datasets/voc.py"
_SBD = "torchvision, datasets/sbd.py"
_COCO = "LAVIS, datasets/download_scripts/download_coco.py"
_COCO_ANNOTATIONS = "PaddlePaddle's download_coco.py, and S3's ETag"
_RESNET = "torchvision, models/resnet.py"
_DRIVE = (
    "https://drive.google.com/open?id=1jWsV5Yev-PwKgvvtUM3GnY0ogb50-qKa (linked by https://github.com/YudeWang/SEAM)"
)
_BAIDU = "https://pan.baidu.com/s/1n7ihgKLQkYyHghVLWRViEw, code xwnr (linked by https://github.com/Ferenas/CPN)"

SOURCES: dict[str, Source] = {
    "voc2012": Source(
        "VOC 2012: 17,125 images, labels, masks of train and val",
        "images under flickr's terms of use, for research: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        (
            Archive(
                "VOCtrainval_11-May-2012.tar",
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                _VOC,
                1_999_639_040,
                md5="6cd6e144f989b92b3379bac3b3de84fd",
                digest_from=_VOC,
                unpack="tar",
                holds="VOCdevkit/VOC2012",
                to="VOC2012",
            ),
        ),
        next=("python -m cpn.prepare {to}/VOC2012",),
    ),
    "sbd": Source(
        "SBD, the Semantic Boundaries Dataset: its list of images makes VOC's trainaug; its masks are never read",
        "images of VOC 2011, for research: http://home.bharathh.info/pubs/codes/SBD/download.html",
        (
            Archive(
                "benchmark.tgz",
                "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
                _SBD,
                1_419_539_633,
                md5="82b4d87ceb2ed10f6038a1cba92111cb",
                digest_from=_SBD,
                unpack="tar",
                holds="benchmark_RELEASE",
                to="VOC2012/benchmark_RELEASE",
            ),
        ),
        into="voc2012",
        next=("python -m cpn.prepare {to}/VOC2012",),
    ),
    "coco2014": Source(
        "MS COCO 2014: 82,783 images of train, 40,504 of val, annotations",
        "annotations CC BY 4.0, images under flickr's terms of use: https://cocodataset.org/#termsofuse",
        (
            Archive(
                "annotations_trainval2014.zip",
                "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
                _COCO_ANNOTATIONS,
                252_872_794,
                md5="0a379cfc70b0e71301e0f377548639bd",
                digest_from=_COCO_ANNOTATIONS,
                unpack="zip",
                holds="annotations",
                to="coco2014/annotations",
            ),
            Archive(
                "val2014.zip",
                "http://images.cocodataset.org/zips/val2014.zip",
                _COCO,
                6_645_013_297,
                md5="a3d79f5ed8d289b7a7554ce06a5782b3",
                digest_from=_COCO,
                unpack="zip",
                holds="val2014",
                to="coco2014/val2014",
            ),
            Archive(
                "train2014.zip",
                "http://images.cocodataset.org/zips/train2014.zip",
                _COCO,
                13_510_573_713,
                md5="0da8c0bd3d6becc4dcb32757491aca88",
                digest_from=_COCO,
                unpack="zip",
                holds="train2014",
                to="coco2014/train2014",
            ),
        ),
        next=("python -m cpn.coco {to}/coco2014 {to}/coco_voc", "python -m cpn.prepare {to}/coco_voc"),
    ),
    "resnet50": Source(
        "ImageNet weights of ResNet-50 (torchvision, IMAGENET1K_V1)",
        "BSD 3-Clause: https://github.com/pytorch/vision/blob/main/LICENSE",
        (
            Archive(
                "resnet50-0676ba61.pth",
                "https://download.pytorch.org/models/resnet50-0676ba61.pth",
                _RESNET,
                None,
                sha256_start="0676ba61",
                digest_from=f"{_RESNET}: the file's own name",
                to="resnet50-0676ba61.pth",
            ),
        ),
        next=("python -m cpn.weights {to}/resnet50-0676ba61.pth --out {to}/resnet50.safetensors",),
    ),
    "resnet38": Source(
        "ImageNet weights of ResNet38 (Model A1 of ademxapp)",
        "Apache 2.0: https://github.com/itijyou/ademxapp",
        page=f"https://github.com/itijyou/ademxapp (its README links Model A1), or {_DRIVE}",
        by_hand="ilsvrc-cls_rna-a1_cls1000_ep-0001.params",
        by_hand_md5="ff21f45d6bf03284100dcbec571edfad",
        digest_from="ademxapp, models/checksum.md5",
        next=("python -m cpn.weights {to}/ilsvrc-cls_rna-a1_cls1000_ep-0001.params --out {to}/resnet38.safetensors",),
    ),
    "cpn_released": Source(
        "the authors' trained CPN",
        "MIT, as its code: https://github.com/Ferenas/CPN",
        page=_BAIDU,
        by_hand="cpn_released.pth",
        method="CPN",
        next=("python -m cpn.weights {to}/cpn_released.pth --out {to}/cpn_released.safetensors",),
    ),
    "seam_released": Source(
        "the authors' trained SEAM",
        "MIT, as its code: https://github.com/YudeWang/SEAM",
        page=_DRIVE,
        by_hand="seam_released.pth",
        method="SEAM",
        next=("python -m cpn.weights {to}/seam_released.pth --out {to}/seam_released.safetensors",),
    ),
}
