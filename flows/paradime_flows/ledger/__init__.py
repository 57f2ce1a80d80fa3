"""The records of the Bolt runs that a flow run tracks, and the flow run's lease. Other packages import these names."""

from paradime_flows.ledger.phase import Phase, Relation
from paradime_flows.ledger.record import (
    FLOW_KEY,
    FlowRunLedger,
    Record,
    hold,
    read_records,
    runs_of_others,
    write_record,
)
from paradime_flows.ledger.retried_parents import are_of_two_attempts, attempts_around, call_name, enter
from paradime_flows.ledger.store import (
    Superseded,
    check_lease,
    execution_of,
    give_sign_of_life,
    last_sign_of_life,
    lost_lease,
    put,
    supersede,
    take_lease,
    top_lease,
)
