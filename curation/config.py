"""Settings of curation: a section for each stage, declared in the stage's own folder."""

from dataclasses import dataclass, field

from refloom.curation.annotate.settings import Face, Filter, Masking, Models, Phrasing, Quality
from refloom.curation.compose.settings import Compose
from refloom.curation.dedup.settings import Dedup
from refloom.curation.group.bounds import Pairs
from refloom.curation.group.identities import Identities
from refloom.curation.group.looks import Looks
from refloom.curation.group.settings import Group
from refloom.curation.passes.sizes import TaskSizes
from refloom.curation.select.balance import Balance
from refloom.curation.select.settings import Select, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Curation:
    """All settings: one section per stage, and the grain of the work over the whole dataset."""

    models: Models = field(default_factory=Models)
    filter: Filter = field(default_factory=Filter)
    mask: Masking = field(default_factory=Masking)
    face: Face = field(default_factory=Face)
    phrase: Phrasing = field(default_factory=Phrasing)
    quality: Quality = field(default_factory=Quality)
    dedup: Dedup = field(default_factory=Dedup)
    select: Select = field(default_factory=Select)
    identities: Identities = field(default_factory=Identities)
    looks: Looks = field(default_factory=Looks)
    group: Group = field(default_factory=Group)
    split: Split = field(default_factory=Split)
    pairs: Pairs = field(default_factory=Pairs)
    balance: Balance = field(default_factory=Balance)
    compose: Compose = field(default_factory=Compose)
    grain: TaskSizes = field(default_factory=TaskSizes)
