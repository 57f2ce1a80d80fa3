"""The context that all parts of an archive share: the facts about the Bolt run, the artifact writer, the problems."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from paradime_blocks import BoltCommand, BoltError, BoltUnavailable
from paradime_blocks.text import Redactor
from paradime_flows.prefect_api import ArtifactWriter, artifact_key, run_logger, short_hash
from paradime_flows.reporting.archive_settings import ArchiveSettings
from paradime_flows.reporting.file_storage import Storage
from paradime_flows.reporting.run_summary import FileRecord, RunRecord

# After the second failure, the archive sends no more requests to Bolt, because the outage may last. After the first
# failure, the archive continues, because the reason may be a single log that is too large.
_OUTAGES_AT_MOST: Final = 2


@dataclass
class ArchiveContext:
    """The context of an archive.

    Attributes:
        writer: The object that writes the artifacts.
        record: The facts about the Bolt run. The archive adds the facts that it fetches.
        settings: What the archive contains, and where files are stored.
        redact: The object that removes secrets from text.
        storage: The place where the archive stores files; None if the archive stores no files.
        dbt_unread: The dbt files that the archive could not read, each with the reason.
    """

    writer: ArtifactWriter
    record: RunRecord
    settings: ArchiveSettings
    redact: Redactor
    storage: Storage | None = None
    dbt_unread: list[str] = field(default_factory=list)
    _outages: int = 0
    _keys: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def commands(self) -> list[BoltCommand]:
        """The commands of the Bolt run, as the record lists them."""
        return self.record.status.commands if self.record.status else []

    @property
    def failing_command(self) -> BoltCommand | None:
        """The command that failed and so ended the Bolt run, or that was running when the Bolt run ended."""
        return self.record.status.decisive_command if self.record.status else None

    @property
    def unreachable(self) -> bool:
        """Whether Bolt was unreachable so often that the archive sends no more requests to Bolt."""
        return self._outages >= _OUTAGES_AT_MOST

    def key(self, *parts: str) -> str:
        """Return the artifact key for a part of the Bolt run's archive. The key contains the name of the schedule."""
        key = artifact_key("paradime", self.record.title, *parts)
        if self._keys.setdefault(key, parts) == parts:
            return key
        # Two paths such as `target/a_b.json` and `target/a-b.json` would have the same key. So the key of the second
        # path gets a hash.
        return artifact_key("paradime", self.record.title, *parts, short_hash("/".join(parts)))

    def count_outage(self, error: Exception) -> None:
        """Count an error that may mean that Bolt is unreachable."""
        self._outages += isinstance(error, BoltUnavailable)

    def not_archived(self, what: str, error: Exception, *, dbt: bool = False) -> None:
        """Write to the summary and to the log that a part could not be archived, and why.

        Args:
            what: The name of the part that could not be archived.
            error: The error because of which the part could not be archived.
            dbt: Whether dbt's results are missing, too.
        """
        reason = error.message if isinstance(error, BoltError) else str(error) or type(error).__name__
        problem = f"{self.redact.line(what)}: {self.redact.line(reason, 300)}"
        self.record.problems.append(problem)
        self.dbt_unread += [problem] if dbt else []
        run_logger().warning("Could not archive part of Bolt run %s: %s", self.record.run_id, problem)

    def file(self, n: int, path: str, **facts: Any) -> None:
        """Add facts about a file that a command wrote to the record of the Bolt run."""
        found = next((file for file in self.record.files if (file.n, file.path) == (n, path)), None)
        if found is None:
            found = FileRecord(n=n, path=path)
            self.record.files.append(found)
        for name, value in facts.items():
            setattr(found, name, value)

    async def store(self, n: int, command: str, path: str, source: Path) -> None:
        """Store a file, if the archive has a storage."""
        if self.storage is None:
            return
        try:
            stored = await self.storage.write(n, command, path, source)
        except Exception as error:  # noqa: BLE001 - whatever a file system raises
            self.not_archived(f"the stored copy of {path} of command {n}", error)
        else:
            self.file(n, path, stored_as=stored.address, stored_url=stored.url, size=stored.size)
