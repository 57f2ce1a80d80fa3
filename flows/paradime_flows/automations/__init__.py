"""Automations in Prefect that act on the events of this package. A file describes the automations.

An automation notifies somebody, or starts a schedule after another schedule.

```bash
python -m paradime_flows.automations apply automations.yaml
```

`apply` can be repeated. It updates an automation that exists, and deletes an automation that is no longer in the file.
It changes only automations whose names begin with `paradime: `.
"""

from paradime_flows.automations.applying import Applied, apply
from paradime_flows.automations.rules import Notify, Rules, Start

__all__ = ["Applied", "Notify", "Rules", "Start", "apply"]
