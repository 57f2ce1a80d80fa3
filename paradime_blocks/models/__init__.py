"""Typed models of Bolt's replies and of our results.

The field names are the API's names in snake case. Fields that this package does not know are kept. A state that this
package does not know is kept, too, and the run counts as not ended. The API sends dates as text in UTC without a time
zone, as the vendor's own clients suggest. The models have dates with a time zone. A date that cannot be read is None,
and a further field keeps its text: `next_run_at_text` for `next_run_at`.
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
