"""What the Prefect UI shows beside the blocks."""

DOCUMENTATION_URL = "https://docs.paradime.io/app-help/documentation/bolt"
LOGO_URL = "https://github.com/paradime-io.png?size=200"
