"""What the report's template shows, by name."""

from typing import TypedDict


class Chart(TypedDict):
    """A chart; its HTML is plotly's own."""

    html: str
    title: str
    label: str
    caption: str
    wide: bool


class PictureBytes(TypedDict):
    """A picture as base64, its form (png, webp) and its size in pixels."""

    kind: str
    data: str
    width: int
    height: int
    alt: str


class Picture(PictureBytes):
    """A picture of a run or stage, and what one should see in it."""

    name: str
    of: str
    look: str
    places: str
    """Where its images stand in a panel, as JSON."""


class PictureGroup(TypedDict):
    """The pictures of a run or stage."""

    title: str
    pictures: list[Picture]
    folded: bool
    """Whether the page shows it only in the comparison."""


class Best(TypedDict):
    """The winner, or the best trial so far."""

    what: str
    uid: str
    configuration: str
    beta: str


class Tile(TypedDict):
    """A number that people ask for first."""

    what: str
    value: str


class LeaderboardCell(TypedDict):
    """A cell and what its column is sorted by."""

    text: str
    key: str


class LeaderboardLine(TypedDict):
    """A trial in the leaderboard."""

    cells: list[LeaderboardCell]
    state: str
    marks: list[str]
    reason: str | None


class LeaderboardSection(TypedDict):
    """The leaderboard and what its columns mean."""

    words: str
    heads: list[str]
    rows: list[LeaderboardLine]
    charts: list[Chart]


class Ladder(TypedDict):
    """The steps from CAM to segmentation."""

    heads: list[str]
    rows: list[list[str]]
    failed: str | None
    words: str | None


class Space(TypedDict):
    """The searched names."""

    heads: list[str]
    rows: list[list[str]]


class PruningSection(TypedDict):
    """What pruning cost and saved."""

    words: list[str]
    charts: list[Chart]


class CostSection(TypedDict):
    """What the hours went to, and how fast the runs trained."""

    words: str
    charts: list[Chart]
    facts: list[tuple[str, str]]


class ReportContext(TypedDict):
    """What report.html.jinja shows: its names, and what they hold."""

    name: str
    state: str
    counts: str
    verdict: str
    against_baseline: str | None
    tone: str
    so_far: str | None
    stopped: str | None
    reload: int | None
    confirm_failed: str | None
    best: Best | None
    selection: str
    tiles: list[Tile]
    leaderboard: LeaderboardSection
    ladder: Ladder | None
    pictures: list[PictureGroup]
    space: Space
    search_charts: list[Chart]
    contours: PictureBytes | None
    slices: list[Chart]
    missing: str
    pruning: PruningSection | None
    cost: CostSection
    yaml: str | None
    export: str | None
    provenance: list[tuple[str, str]]
    starts: list[list[str]]
    commands: list[str]
    command: str
    created: str
    sections: list[tuple[str, str]]
