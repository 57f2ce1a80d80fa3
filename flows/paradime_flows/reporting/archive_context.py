"""What the parts of an archive share: the record of the run, where to write, and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from paradime_blocks import BoltError, BoltUnavailable
from paradime_blocks.models import BoltCommand
from paradime_blocks.text import Redactor
from paradime_flows.prefect_api import ArtifactWriter, artifact_key, run_logger, short_hash
from paradime_flows.reporting.archive_settings import ArchiveSettings
from paradime_flows.reporting.run_summary import FileRecord, RunRecord
from paradime_flows.reporting.storage import Storage

# An outage that lasts is not waited for again with each command; one command's log may be too much for Bolt.
_OUTAGES_AT_MOST: Final = 2


@dataclass
class ArchiveContext:
    """An archive in the making.

    Attributes:
        writer: Writes the artifacts.
        record: What is known of the run; completed by what is fetched.
        settings: What to archive, and where.
        redact: Takes secrets out of text.
        storage: Where files are kept, if they are.
    """

    writer: ArtifactWriter
    record: RunRecord
    settings: ArchiveSettings
    redact: Redactor
    storage: Storage | None = None
    _outages: int = 0
    _keys: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def commands(self) -> list[BoltCommand]:
        """The run's commands, as far as they are known."""
        return self.record.status.commands if self.record.status else []

    @property
    def failing_command(self) -> BoltCommand | None:
        """The command that ended the run badly, or that its end broke off."""
        return self.record.status.decisive_command if self.record.status else None

    @property
    def out_of_reach(self) -> bool:
        """Whether Bolt has failed to answer so often that it is not asked again."""
        return self._outages >= _OUTAGES_AT_MOST

    def key(self, *parts: str) -> str:
        """Return the key of one of the run's artifacts."""
        key = artifact_key("paradime", self.record.title, *parts)
        if self._keys.setdefault(key, parts) == parts:
            return key
        # Of `target/a_b.json` and `target/a-b.json`, the second has a key of its own.
        return artifact_key("paradime", self.record.title, *parts, short_hash("/".join(parts)))

    def count_outage(self, error: Exception) -> None:
        """Take note of an error that may mean that Bolt is out of reach."""
        self._outages += isinstance(error, BoltUnavailable)

    def missed(self, what: str, error: Exception) -> None:
        """Write down what could not be archived; it hides nothing else."""
        reason = error.message if isinstance(error, BoltError) else str(error) or type(error).__name__
        told = f"{self.redact.line(what)}: {self.redact.line(reason, 300)}"
        self.record.problems.append(told)
        run_logger().warning("Not archived of Bolt run %s: %s", self.record.run_id, told)

    def file(self, n: int, path: str, **facts: Any) -> None:
        """Write down something about a file that a command left behind."""
        found = next((file for file in self.record.files if (file.n, file.path) == (n, path)), None)
        if found is None:
            found = FileRecord(n=n, path=path)
            self.record.files.append(found)
        for name, value in facts.items():
            setattr(found, name, value)

    async def keep(self, n: int, command: str, path: str, source: Path) -> None:
        """Keep a file, if files are kept."""
        if self.storage is None:
            return
        try:
            kept = await self.storage.write(n, command, path, source)
        except Exception as error:  # noqa: BLE001 - whatever a file system raises
            self.missed(f"the stored file of {path} of command {n}", error)
        else:
            self.file(n, path, kept=kept.address, kept_url=kept.url, size=kept.size)
