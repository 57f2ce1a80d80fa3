"""What the Prefect UI shows beside the blocks."""

DOCUMENTATION_URL = "https://github.com/prefect-paradime/prefect-paradime#configure"
LOGO_URL = "https://github.com/paradime-io.png?size=200"
