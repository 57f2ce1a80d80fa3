"""Reads dbt's files and logs. The flows import from here."""

from paradime_blocks.dbt.artifacts import (
    FreshnessResult,
    Manifest,
    ManifestNode,
    NodeResult,
    RunResults,
    parse_freshness,
    parse_manifest,
    parse_run_results,
    unread_freshness,
)
from paradime_blocks.dbt.digest import digest
from paradime_blocks.dbt.json import DbtArtifactError
from paradime_blocks.dbt.log_dialects import TIME, LogLine
from paradime_blocks.dbt.log_levels import LevelReader, Piece, Record, Stream
from paradime_blocks.dbt.logs import first_error, last_line
from paradime_blocks.dbt.reasons import LogReasons, explain, explain_freshness, reasons_in
from paradime_blocks.dbt.results import (
    FAILED,
    GROUPS,
    SKIPPED,
    SUCCEEDED,
    TESTS,
    WARNED,
    Summary,
    calls_dbt,
    cause,
    failures_first,
    may_have_checked,
    may_have_written,
    merge,
    summarise,
    told_batches,
)

__all__ = [
    "FAILED",
    "GROUPS",
    "SKIPPED",
    "SUCCEEDED",
    "TESTS",
    "TIME",
    "WARNED",
    "DbtArtifactError",
    "FreshnessResult",
    "LevelReader",
    "LogLine",
    "LogReasons",
    "Manifest",
    "ManifestNode",
    "NodeResult",
    "Piece",
    "Record",
    "RunResults",
    "Stream",
    "Summary",
    "calls_dbt",
    "cause",
    "digest",
    "explain",
    "explain_freshness",
    "failures_first",
    "first_error",
    "last_line",
    "may_have_checked",
    "may_have_written",
    "merge",
    "parse_freshness",
    "parse_manifest",
    "parse_run_results",
    "reasons_in",
    "summarise",
    "told_batches",
    "unread_freshness",
]
