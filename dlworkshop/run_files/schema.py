"""The types of the files of a run folder; additional entries are allowed.

Every run has the required entries; runs of older versions and lessons may lack others.
"""

from typing import Annotated, Any, Literal, Required, TypedDict

from msgspec import Meta

DTYPE = (
    r"^(bool|u?int(2|4|8|16|32|64)|bfloat16|float(16|32|64)|complex(64|128)"
    r"|float8_(e3m4|e4m3|e4m3fn|e4m3fnuz|e4m3b11fnuz|e5m2|e5m2fnuz|e8m0fnu))$"
)

Size = Annotated[int, Meta(ge=0, le=1 << 53)]
Positive = Annotated[int, Meta(ge=1, le=1 << 53)]
Side = Annotated[int, Meta(ge=1, le=1 << 14)]  # pixels
Dtype = Annotated[str, Meta(pattern=DTYPE)]
Outputs = Literal["logits", "binary_logits", "probabilities", "values"] | None
Number = float | None  # null where it is not finite
Numbers = dict[str, Number] | None
Deviation = Annotated[float, Meta(gt=0)]
Pair = tuple[str, Size]


class Score(TypedDict, total=False):
    """A quantity over the members."""

    mean: Number
    sem: Number
    n: Size | None


class Member(TypedDict, total=False):
    """A row of the population."""

    seed: int | None
    hparams: dict[str, float | str | None] | None
    status: str
    note: str | None
    place: Size
    steps: Size | None
    test: Numbers
    validation: Numbers


class Claim(TypedDict, total=False):
    statement: str
    relation: str
    verdict: str
    why: str | None
    test: str | None
    spread: tuple[Number, Number] | None
    n: Number
    p: Number


class Exercise(TypedDict, total=False):
    question: str
    answer: str
    claim: Claim | None


class Figure(TypedDict, total=False):
    file: Required[str]
    caption: str
    control: str
    frames: list[str]


class Input(TypedDict, total=False):
    """An array of inputs."""

    shape: list[Size]
    dtype: Dtype
    low: Number
    high: Number
    columns: list[str]


class Setting(TypedDict, total=False):
    """A row of a search."""

    candidate: Required[str]
    hparams: Required[dict[str, Any]]
    mean: Number
    sem: Number
    behind: Number
    behind_sem: Number


class Search(TypedDict, total=False):
    rows: list[Setting]
    judged_by: str
    tried: dict[str, dict[str, Any]]
    left_out: list[str]


class Interval(TypedDict):
    mean: Number
    low: Number
    high: Number


class Budget(TypedDict):
    minutes: float
    used_seconds: float


class Stat(TypedDict):
    mean: Number
    sem: Number


class Ranked(TypedDict, total=False):
    """A setting of hyper-parameters with its members; the best comes first."""

    hparams: Required[dict[str, Any]]
    members: Required[Annotated[list[Size], Meta(min_length=1)]]
    finite: Required[float]
    validation: dict[str, Stat]
    test: dict[str, Stat]


class Trial(TypedDict, total=False):
    """A trial of a sweep; the best comes first."""

    trial: Required[Size]
    hparams: Required[dict[str, str | Number | bool]]
    validation: Required[dict[str, Stat]]
    bucket: Size
    finite: float


class SweepTold(TypedDict, total=False):
    """The trials of a sweep, whose best setting was trained again."""

    trials: Annotated[list[Trial], Meta(min_length=1)]
    importance: dict[str, float]
    buckets: Size
    seeds: list[int]


class Scheduled(TypedDict, total=False):
    """A scheduler, and the members that remain after its rungs."""

    name: str
    rungs: dict[str, Size]


class Summary(TypedDict, total=False):
    experiment: str | None
    question: str | None
    about: str | None
    finding: str | None
    dataset: Any
    model: Any
    members: Size | None
    steps: Size | None
    model_steps: dict[str, Size]
    scheduler: Scheduled
    parameters: Any
    monitor: str | None
    better: str | None
    outputs: Outputs
    inputs: dict[str, Input]
    test: dict[str, Score] | None
    validation: dict[str, Score] | None
    seconds: Numbers
    examples_per_second: Number
    members_at_once: Positive
    claims: list[Claim] | None
    interrupted: bool
    population: list[Member] | None
    settings: list[Ranked] | None
    table: str | None
    log_bytes: Size
    sha256: dict[str, str]
    figures: list[Figure] | None
    exercises: list[Exercise] | None
    notes: list[str] | None
    baselines: dict[str, dict[str, Any]] | None
    ensemble: dict[str, Any] | None
    expected: dict[str, Interval | Number | str] | None
    search: Search | None
    sweep: SweepTold | None
    budget: Budget | None


class Data(TypedDict, total=False):
    """The data set in a config."""

    name: str
    fingerprint: str
    classes: list[str]
    shape: list[Size] | None
    test: Size


class Execution(TypedDict, total=False):
    convolution: str | None
    sequential: bool
    micro_batch: Positive | None


class Derived(TypedDict, total=False):
    format: Positive
    platform: str
    execution: Execution
    members_at_once: Positive | None
    steps_per_chunk: Positive | None
    timed: bool


class Config(TypedDict, total=False):
    experiment: str | None
    dataset: Data | str | None
    model: dict[str, Any] | str | None
    metrics: dict[str, str | None] | None
    hparams: dict[str, list[Number] | Number] | None
    model_hparams: dict[str, str]
    seeds: list[int] | None
    num_epochs: Positive
    identity: dict[str, Any] | None
    derived: Derived


class Copies(TypedDict, total=False):
    examples: Required[Size]
    across_splits: Required[Size]
    of_several_classes: Size
    across: list[list[str]]
    torn: list[list[str]]


class Groups(TypedDict):
    by: str
    groups: Size
    in_several_splits: Size
    largest: Size


class CardColumn(TypedDict):
    name: str
    about: str
    missing: Size


class Card(TypedDict, total=False):
    """The data card."""

    shape: list[Size] | dict[str, list[Size]]
    sizes_of_splits: dict[str, Size]
    classes: list[str]
    counts: dict[str, list[Size]]
    examples: list[list[str]]
    augmented: list[list[str]]
    warnings: list[str] | None
    copies: Copies | None
    groups: Groups | None
    columns: list[CardColumn] | None
    target: str | list[str] | None
    sizes: list[Pair] | None
    modes: list[Pair] | None
    skipped: list[tuple[str, str]] | None
    num_sizes: Size
    num_skipped: Size
    num_columns: Size


class Target(TypedDict, total=False):
    """A target column of a table."""

    name: str
    mean: float
    deviation: Deviation


class Column(TypedDict, total=False):
    """A feature column of a table: numbers, or words."""

    name: Required[str]
    missing: Required[bool]
    mean: float
    deviation: Deviation
    values: list[str]


class Targets(TypedDict):
    task: str
    several: bool
    columns: Annotated[list[Target], Meta(min_length=1)]


class SeenBy(TypedDict):
    """The network whose features of images are the inputs."""

    network: Literal["vgg16"]
    weights: str
    sha256: str


class Conversion(TypedDict, total=False):
    """From a file or row to an example; CONVERSION_KEYS are required, by kind."""

    kind: str
    height: Side
    width: Side
    channels: Literal[1, 3]
    depth: Annotated[int, Meta(ge=8, le=31)]
    resize: Literal["crop", "pad"]
    shape: list[Size]
    mean: list[float]
    deviation: list[Deviation]
    columns: Annotated[list[Column], Meta(min_length=1)]
    target: Targets
    seen_by: SeenBy


CONVERSION_KEYS = {
    "image": {"height", "width", "channels", "resize"},
    "table": {"columns"},
    "array": {"shape"},
}


class Preprocessing(TypedDict):
    classes: list[str]
    preprocessing: Conversion | None


class LogLine(TypedDict, total=False):
    """A line of metrics.jsonl: measurements of each member at the end of a chunk."""

    step: Required[Size]
    epoch: Required[Number]
    train: Required[dict[str, list[Number]]]
    validation: dict[str, list[Number]] | None
    hparams: dict[str, list[Number]]  # those that change during training
    source: list[Size]  # the member that each member continues


class Seconds(TypedDict):
    compile: float
    train: float
    total: float


class Position(TypedDict, total=False):
    """The part of a checkpoint that is not arrays."""

    step: Required[Size]
    log: Required[Size]  # bytes
    log_sha256: str  # of these bytes; older ones have none
    settings: str  # digest of the config; older ones have none
    seconds: Required[Seconds]
    hparams: dict[str, list[float]]  # those that change during training


class Share(TypedDict):
    """A proportion of examples, with its interval."""

    share: float
    low: float
    high: float
    examples: Size


class Sets(TypedDict):
    threshold: float
    test: Share
    size: float
    alone: float


class Half(TypedDict):
    half: float
    test: Share


class Errors(TypedDict):
    before: float
    after: float


class Temperature(TypedDict, total=False):
    error: Required[float]
    noise: Required[float]
    temperature: Deviation
    test: Errors


class Unlike(TypedDict):
    names: list[str]
    centre: list[float]
    reach: list[float]
    far: float
    rate: float
    test: Share


class Importance(TypedDict):
    column: str
    mean: float
    sem: Number


class Importances(TypedDict):
    score: str
    examples: Size
    columns: list[Importance]


class Salient(TypedDict):
    name: str
    true: str
    said: str
    fell: float
    pictures: list[str]


class Near(TypedDict):
    name: str
    true: str
    distance: float


class Mistake(TypedDict, total=False):
    name: Required[str]
    true: Required[str]
    said: Required[str]
    nearest: Required[list[Near]]
    pictures: list[str]


class Mistakes(TypedDict):
    looked_at: Size
    rows: Annotated[list[Mistake], Meta(min_length=1)]


class Answers(TypedDict, total=False):
    """The reliability of a run's predictions."""

    level: float
    held_out: dict[str, Any] | None
    sets: Sets
    intervals: list[Half]
    temperature: Temperature
    unlike: Unlike
    importance: Importances
    saliency: list[Salient]
    mistakes: Mistakes


class Searched(TypedDict, total=False):
    """A candidate: its settings with their scores and losses."""

    rows: Required[list[tuple[str, dict[str, float], list[Number], list[Number]]]]
    taken: dict[str, float] | None
    update: Number
    planned: Number


class Effort(TypedDict):
    seeds: Positive
    updates: Positive
    usual: Positive
    seconds: float


class SearchFile(TypedDict, total=False):
    """The results of a search so far."""

    asked: Required[dict[str, Any]]
    searched: Required[dict[str, Searched]]
    left_out: Required[list[str]]
    seconds: Required[float]
    folds: Size
    run: Effort
    told: list[Setting]
    sha256: dict[str, str]


class TrainedData(TypedDict):
    name: str
    fingerprint: str
    classes: list[str]
    example: Any
    shape: list[Size] | None


class Trained(TypedDict):
    """The entries of a config that predictions need."""

    dataset: TrainedData
    model: dict[str, Any]
    hparams: dict[str, list[Number]]
    model_hparams: dict[str, str]


class Ended(TypedDict, total=False):
    status: Required[str]
    hparams: dict[str, float]


class Answering(TypedDict):
    """The entries of a summary that predictions need."""

    outputs: Outputs
    example: Any
    population: list[Ended]
