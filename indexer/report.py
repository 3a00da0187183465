"""IngestReport: what became of the items of a source."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Failure:
    key: str
    reason: str


@dataclass
class IngestReport:
    """What became of a batch, or of all batches added up."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: list[Failure] = field(default_factory=list)
    stages_s: dict[str, float] = field(default_factory=dict)
    """Busy seconds: read, decode, encode and write of pictures, which overlap, decode in several threads; read,
    check and write of vectors."""

    def add(self, other: IngestReport) -> None:
        self.added += other.added
        self.updated += other.updated
        self.unchanged += other.unchanged
        self.failed += other.failed
        for stage, seconds in other.stages_s.items():
            self.spent(stage, seconds)

    def spent(self, stage: str, seconds: float) -> None:
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + seconds
