"""What Bolt answers, typed.

Field names are the API's in snake case. Fields that this package does not know are kept; states that it does
not know are kept too and taken for unfinished. The API gives dates as text in UTC without a zone
(`facts.md`: an inference from the vendor's own clients); here they are timezone-aware. One that cannot be read
is None, and what stood there is kept beside it, as `next_run_at_text` is beside `next_run_at`.
"""

from paradime_blocks.models.dates import parse_bolt_date
from paradime_blocks.models.dbt import BoltDbtNode, BoltDbtResult, BoltDbtSource
from paradime_blocks.models.ends import count_setup
from paradime_blocks.models.logs import BoltLogLine, BoltLogPage
from paradime_blocks.models.results import (
    BoltAttempt,
    BoltCommandSummary,
    BoltLatestArtifact,
    BoltResourceSummary,
    BoltRunResult,
    BoltUsualDuration,
)
from paradime_blocks.models.runs import (
    BoltCommand,
    BoltCommandDetail,
    BoltGitInfo,
    BoltResource,
    BoltRunPage,
    BoltRunRecord,
    BoltRunStatus,
    run_url,
)
from paradime_blocks.models.schedules import (
    BoltDeferredSchedule,
    BoltScheduleDetail,
    BoltSchedulePage,
    BoltScheduleSummary,
    BoltTurboCi,
)
from paradime_blocks.models.states import BoltRunState

__all__ = [
    "BoltAttempt",
    "BoltCommand",
    "BoltCommandDetail",
    "BoltCommandSummary",
    "BoltDbtNode",
    "BoltDbtResult",
    "BoltDbtSource",
    "BoltDeferredSchedule",
    "BoltGitInfo",
    "BoltLatestArtifact",
    "BoltLogLine",
    "BoltLogPage",
    "BoltResource",
    "BoltResourceSummary",
    "BoltRunPage",
    "BoltRunRecord",
    "BoltRunResult",
    "BoltRunState",
    "BoltRunStatus",
    "BoltScheduleDetail",
    "BoltSchedulePage",
    "BoltScheduleSummary",
    "BoltTurboCi",
    "BoltUsualDuration",
    "count_setup",
    "parse_bolt_date",
    "run_url",
]
